"""No operation."""

from dataclasses import dataclass

from torch import Tensor

from fastcifar.config import AugmentOp, Draws, register_augment_op


@register_augment_op("none")
@dataclass(frozen=True, kw_only=True, slots=True)
class NoOp(AugmentOp):
    """Leaves the images as the fused kernel made them."""

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """See `AugmentOp.apply`."""
        return images
