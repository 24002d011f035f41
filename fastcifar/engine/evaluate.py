"""Logits, accuracy and loss on a whole split, of pictures as they are or of their mirror images."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcifar.device import Placement


@torch.inference_mode()
def predict_logits(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], placement: Placement, *, mirror: bool = False
) -> tuple[Tensor, Tensor]:
    """Logits float32 (n, classes) and labels int64 (n,) on the CPU; with `mirror`, of the pictures' mirror images.

    Batch norm uses its running statistics, so how the pictures are batched does not matter beyond rounding.
    """
    model.eval()
    logits: list[Tensor] = []
    labels: list[Tensor] = []
    for images, batch_labels in batches:
        images = images.to(placement.device, non_blocking=True)
        if mirror:
            images = images.flip(3)
        with placement.autocast:
            logits.append(model(images.contiguous(memory_format=torch.channels_last)).float())
        labels.append(batch_labels)
    return torch.cat(logits).cpu(), torch.cat(labels).cpu()


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of the logits (n, classes) whose largest is that of the label (n,)."""
    return (logits.argmax(1) == labels).sum().item() / len(labels)


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float) -> float | None:
    """The loss of the training, in nats, of logits (n, classes) and labels (n,); None where it is not finite."""
    loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing).item()
    return loss if math.isfinite(loss) else None
