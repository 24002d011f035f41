"""Logits of a network on a whole split, and what is computed from them."""

import math
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcifar.config import EvaluationConfig
from fastcifar.errors import UserError
from fastcifar.runtime.device import Runtime


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    runtime: Runtime,
    predict: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Single-view logits float32 (n, classes) and labels int64 (n,), on the CPU.

    Batch norm uses its running statistics, so the batch size changes the logits by no more than rounding.
    """
    model.eval()
    logits: list[Tensor] = []
    labels: list[Tensor] = []
    for images, batch_labels in batches:
        logits.append((predict or predictor(model, runtime))(images))
        labels.append(batch_labels)
    return torch.cat(logits).cpu(), torch.cat(labels).cpu()


@torch.inference_mode()
def evaluate_logits(
    evaluation: EvaluationConfig,
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    runtime: Runtime,
    single_view: Tensor,
    predict: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Logits float32 (n, classes) by `evaluation`, on the CPU; `single_view` are those of `predict_logits`.

    Raises UserError for logits of another shape and for NaN.
    """
    model.eval()
    logits = torch.as_tensor(evaluation.logits(predict or predictor(model, runtime), batches, single_view.clone()))
    if logits.shape != single_view.shape or (logits.isnan().any() and not single_view.isnan().any()):
        found = "NaN" if logits.shape == single_view.shape else f"logits {tuple(logits.shape)}"
        name, wanted = type(evaluation).__name__, tuple(single_view.shape)
        raise UserError(f"the evaluation {name} gives {found}, but must give numbers {wanted}")
    return logits.float().cpu()


def predictor(model: nn.Module, runtime: Runtime) -> Callable[[Tensor], Tensor]:
    """The logits of a batch."""
    return partial(_predict, model, runtime)


def _predict(model: nn.Module, runtime: Runtime, images: Tensor) -> Tensor:
    images = images.to(runtime.device, non_blocking=True)
    with runtime.autocast:
        return model(images.contiguous(memory_format=torch.channels_last)).float()


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Fraction of the rows of logits (n, classes) whose largest entry is that of the label (n,)."""
    return (logits.argmax(1) == labels).sum().item() / len(labels)


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float) -> float | None:
    """The training loss, in nats, of logits (n, classes) and labels (n,); None if it is not finite."""
    loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing).item()
    return loss if math.isfinite(loss) else None
