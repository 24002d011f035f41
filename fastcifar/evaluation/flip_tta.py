"""Flip TTA: each test image and its mirror image."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fastcifar.config import EvaluationConfig, register_evaluation


@register_evaluation("flip_tta")
@dataclass(frozen=True, kw_only=True, slots=True)
class FlipTta(EvaluationConfig):
    """Mean logits of an image and its mirror image."""

    title: ClassVar[str] = "flip TTA"
    summary: ClassVar[str] = "mean of the logits of an image and its mirror image"

    def logits(
        self, predict: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]], single_view: Tensor
    ) -> Tensor:
        """See `EvaluationConfig.logits`."""
        mirrored = torch.cat([predict(images.flip(3)) for images, _ in batches])
        return (single_view + mirrored) / 2
