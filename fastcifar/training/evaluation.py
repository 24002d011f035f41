"""Logits, accuracy and loss on a whole split, by a single view of each image or with test-time augmentation (TTA)."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcifar.runtime.device import Runtime

SELECTED_ONE_IN = 5
"""Selective TTA evaluates one image in five with six views: those with the smallest top-2 margin."""
SHIFT_CORNERS = ((0, 0), (2, 2))
"""(y, x) of the two shifted views in an image padded by one pixel: shifted down and right, and up and left."""


@torch.inference_mode()
def predict_logits(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], runtime: Runtime
) -> tuple[Tensor, Tensor]:
    """Single-view logits float32 (n, classes) and labels int64 (n,), on the CPU.

    Batch norm uses its running statistics, so the batch size changes the logits by no more than rounding.
    """
    model.eval()
    logits: list[Tensor] = []
    labels: list[Tensor] = []
    for images, batch_labels in batches:
        logits.append(_logits(model, images, runtime))
        labels.append(batch_labels)
    return torch.cat(logits).cpu(), torch.cat(labels).cpu()


@torch.inference_mode()
def predict_tta(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    runtime: Runtime,
    kind: str,
    plain: Tensor,
) -> Tensor:
    """Mean logits over the views of `kind`, float32 (n, classes), on the CPU; `plain` are the single-view logits.

    "flip_tta": the image and its mirror image. "selective_tta": six views of the 20% of images with the smallest top-2
    margin, `plain` for the others. The views are those two with weight 1/4 each, and both shifted by a pixel (up-left
    and down-right, borders reflected) with weight 1/8 each, as K. Jordan uses for all images (arXiv 2404.00498).
    """
    model.eval()
    if kind == "flip_tta":
        mirror = torch.cat([_logits(model, images.flip(3), runtime) for images, _ in batches]).cpu()
        return (plain + mirror) / 2
    is_selected = smallest_margins(plain)
    selected, first, size = [], 0, 1
    for images, _ in batches:
        selected.append(images[is_selected[first : first + len(images)].to(images.device)])
        first, size = first + len(images), max(size, len(images))
    logits = plain.clone()
    if is_selected.any():
        more = [_five_views(model, images, runtime) for images in torch.cat(selected).split(size)]
        logits[is_selected] = plain[is_selected] / 4 + torch.cat(more).cpu()
    return logits


def smallest_margins(logits: Tensor) -> Tensor:
    """Bool (n,): the 20% of the rows of logits (n, classes), rounded down, with the smallest top-2 margin."""
    margin = torch.diff(logits.topk(2).values).abs().squeeze(1)
    selected = torch.zeros(len(logits), dtype=torch.bool)
    selected[margin.argsort(stable=True)[: len(logits) // SELECTED_ONE_IN]] = True
    return selected


def _five_views(model: nn.Module, images: Tensor, runtime: Runtime) -> Tensor:
    """The weighted logits of all six views except the image itself, summed."""
    height, width = images.shape[2:]
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    shifted = [padded[:, :, y : y + height, x : x + width] for y, x in SHIFT_CORNERS]
    mirrored = [view.flip(3) for view in (images, *shifted)]
    total = _logits(model, mirrored[0], runtime) / 4
    for view in (*shifted, *mirrored[1:]):
        total += _logits(model, view, runtime) / 8
    return total


def _logits(model: nn.Module, images: Tensor, runtime: Runtime) -> Tensor:
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
