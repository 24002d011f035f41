"""Selective TTA: six views of the images that the network is least sure of, a single view of the others.

The views are those of K. Jordan (arXiv 2404.00498), who takes all six of every image: the image and its mirror image
with weight 1/4 each, and both of them shifted by a pixel, up-left and down-right, with weight 1/8 each.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from fastcifar.config import EvaluationConfig, register_evaluation
from fastcifar.config.components import require

SHIFT_CORNERS = ((0, 0), (2, 2))
"""(y, x) of the two shifted views in an image padded by one pixel: shifted down and right, and up and left."""


@register_evaluation("selective_tta")
@dataclass(frozen=True, kw_only=True, slots=True)
class SelectiveTta(EvaluationConfig):
    """Mean logits of six views (mirrored, moved by a pixel) of the images with the smallest top-2 margin."""

    one_in: int = 5
    """One image in so many gets six views, at least 1: those with the smallest top-2 margin."""

    title: ClassVar[str] = "selective TTA"
    summary: ClassVar[str] = (
        "mean of the logits of six views (the image, two copies shifted diagonally by one pixel, and the mirror images "
        "of all three) for the images with the smallest top-2 margin, by default 20%; a single view of the others"
    )

    def __post_init__(self) -> None:
        require(self.one_in >= 1, f"evaluation.one_in is {self.one_in}, but must be at least 1")

    def logits(
        self, predict: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]], single_view: Tensor
    ) -> Tensor:
        """See `EvaluationConfig.logits`."""
        selected = smallest_margins(single_view, self.one_in)
        if not len(selected):
            return single_view
        parts = [images for images, _ in batches]
        # the indices stay on the device, which therefore need not be waited for
        images = torch.cat(parts).index_select(0, selected.to(parts[0].device))
        more = torch.cat([_five_views(predict, some) for some in images.split(max(map(len, parts)))])
        return single_view.index_copy(0, selected, single_view.index_select(0, selected) / 4 + more)


def smallest_margins(logits: Tensor, one_in: int) -> Tensor:
    """Of the rows of logits (n, classes) those with the smallest top-2 margins: ascending indices int64 (n // one_in,).

    Among equal margins the first. On the device of the logits, without waiting for it.
    """
    margin = torch.diff(logits.topk(2).values).abs().squeeze(1)
    return margin.argsort(stable=True)[: len(logits) // one_in].sort().values


def _five_views(predict: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The weighted logits of all six views except the image itself, summed."""
    height, width = images.shape[2:]
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    shifted = [padded[:, :, y : y + height, x : x + width] for y, x in SHIFT_CORNERS]
    mirrored = [view.flip(3) for view in (images, *shifted)]
    total = predict(mirrored[0]) / 4
    for view in (*shifted, *mirrored[1:]):
        total += predict(view) / 8
    return total
