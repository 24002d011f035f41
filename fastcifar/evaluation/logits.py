"""Logits of a network on a whole split, and what is computed from them."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcifar.config import EvaluationConfig
from fastcifar.errors import UserError
from fastcifar.runtime.device import Runtime

Predict = Callable[[Tensor], Tensor]
"""Logits float32 (b, classes) of images (b, 3, s, s), as `predictor` makes it."""


def predictor(model: nn.Module, runtime: Runtime) -> Predict:
    """The function that computes logits float32 (b, classes) of normalised images (b, 3, s, s), on the run's device.

    Images may be on any device, and b may change from call to call. Each call returns a new tensor without waiting for
    the device, and leaves `model` in evaluation mode: batch norm uses its running statistics, so b changes the logits
    by no more than rounding.
    """

    @torch.inference_mode()
    def predict(images: Tensor) -> Tensor:
        model.eval()
        images = images.to(runtime.device, non_blocking=True)
        with runtime.autocast:
            return model(images.contiguous(memory_format=torch.channels_last)).float()

    return predict


@torch.inference_mode()
def predict_logits(predict: Predict, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Single-view logits float32 (n, classes) and labels int64 (n,), both on the device of the logits.

    Does not wait for the device. `predict`: that of `predictor`, or another one like it.
    """
    logits: list[Tensor] = []
    labels: list[Tensor] = []
    for images, batch_labels in batches:
        logits.append(predict(images))
        labels.append(batch_labels)
    return torch.cat(logits), torch.cat(labels).to(logits[0].device)


@torch.inference_mode()
def evaluate_logits(
    evaluation: EvaluationConfig,
    predict: Predict,
    batches: Iterable[tuple[Tensor, Tensor]],
    single_view: Tensor,
) -> Tensor:
    """Logits float32 (n, classes) by `evaluation`, on the device of `single_view`, which `predict_logits` gave.

    Waits for the device once, at the end, to raise UserError for NaN; also raises it for logits of another shape.
    """
    logits = torch.as_tensor(evaluation.logits(predict, batches, single_view.clone()))
    if logits.shape != single_view.shape or (logits.isnan().any() and not single_view.isnan().any()):
        found = "NaN" if logits.shape == single_view.shape else f"logits {tuple(logits.shape)}"
        name, wanted = type(evaluation).__name__, tuple(single_view.shape)
        raise UserError(f"the evaluation {name} gives {found}, but must give numbers {wanted}")
    return logits.to(single_view.device, torch.float32)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Fraction of the rows of logits (n, classes) whose largest entry is that of the label (n,)."""
    return (logits.argmax(1) == labels).sum().item() / len(labels)


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float) -> float | None:
    """The training loss, in nats, of logits (n, classes) and labels (n,); None if it is not finite."""
    loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing).item()
    return loss if math.isfinite(loss) else None
