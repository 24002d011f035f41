"""Logits, accuracy and loss on a whole split, by one view of each image or by several: test-time augmentation."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcifar.runtime.device import Runtime

UNSURE_FRACTION = 5
"""One in so many images gets more views: those whose two best logits lie closest."""
MOVED = ((0, 0), (2, 2))
"""Corners of the two moved views in an image with a border of one pixel: down and right by one, up and left by one."""


@torch.inference_mode()
def predict_logits(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], runtime: Runtime
) -> tuple[Tensor, Tensor]:
    """Logits float32 (n, classes) and labels int64 (n,) on the CPU, by one view of each image.

    Batch norm uses its running statistics, so how the images are batched does not matter beyond rounding.
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
    """Logits float32 (n, classes) on the CPU, means over the views of `kind`; `plain` are those of one view.

    "flip_tta": an image and its mirror image. "selective_tta": for the fifth of the images whose two largest plain logits
    lie closest, these two and both moved by a pixel, up and left or down and right, its border reflected, with weights
    of 1/4, 1/4 and four times 1/8 (K. Jordan, arXiv 2404.00498, for all images); for the others the plain ones.
    """
    model.eval()
    if kind == "flip_tta":
        mirror = torch.cat([_logits(model, images.flip(3), runtime) for images, _ in batches]).cpu()
        return (plain + mirror) / 2
    unsure = smallest_margins(plain)
    chosen, first, size = [], 0, 1
    for images, _ in batches:
        chosen.append(images[unsure[first : first + len(images)].to(images.device)])
        first, size = first + len(images), max(size, len(images))
    logits = plain.clone()
    if unsure.any():
        more = [_five_views(model, images, runtime) for images in torch.cat(chosen).split(size)]
        logits[unsure] = plain[unsure] / 4 + torch.cat(more).cpu()
    return logits


def smallest_margins(logits: Tensor) -> Tensor:
    """Bool (n,): the fifth of the rows of logits (n, classes), rounded down, whose two largest lie closest."""
    margin = torch.diff(logits.topk(2).values).abs().squeeze(1)
    unsure = torch.zeros(len(logits), dtype=torch.bool)
    unsure[margin.argsort(stable=True)[: len(logits) // UNSURE_FRACTION]] = True
    return unsure


def _five_views(model: nn.Module, images: Tensor, runtime: Runtime) -> Tensor:
    """The part of the mean over six views that the five others than the image itself have."""
    height, width = images.shape[2:]
    border = F.pad(images, (1, 1, 1, 1), mode="reflect")
    moved = [border[:, :, y : y + height, x : x + width] for y, x in MOVED]
    mirrored = [view.flip(3) for view in (images, *moved)]
    total = _logits(model, mirrored[0], runtime) / 4
    for view in (*moved, *mirrored[1:]):
        total += _logits(model, view, runtime) / 8
    return total


def _logits(model: nn.Module, images: Tensor, runtime: Runtime) -> Tensor:
    images = images.to(runtime.device, non_blocking=True)
    with runtime.autocast:
        return model(images.contiguous(memory_format=torch.channels_last)).float()


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of the logits (n, classes) whose largest is that of the label (n,)."""
    return (logits.argmax(1) == labels).sum().item() / len(labels)


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float) -> float | None:
    """The loss of the training, in nats, of logits (n, classes) and labels (n,); None where it is not finite."""
    loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing).item()
    return loss if math.isfinite(loss) else None
