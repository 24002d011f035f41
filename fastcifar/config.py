"""Every tunable, as frozen dataclasses: unit, meaning, source. The command line and the TOML files are these fields."""

from dataclasses import dataclass
from typing import Literal


def require(condition: bool, message: str) -> None:
    """Raises UserError(message) where a value is refused."""
    from fastcifar.errors import UserError

    if not condition:
        raise UserError(message)


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """What happens to a training picture, in this order: pad, random crop to 32, flip, resize, cutout."""

    pad: int = 4
    """Pixels added on each side before the crop, 0 to 16; 0 turns cropping off."""
    pad_mode: Literal["zero", "reflect"] = "zero"
    """What is added: black pixels, or the picture mirrored at its border without repeating it."""
    flip: Literal["none", "random", "alternating"] = "random"
    """Mirror left to right: never, by a coin each epoch, or every other epoch (arXiv 2404.00498, section 3.6)."""
    cutout: int = 8
    """Side of the square that is replaced by the mean colour, in pixels at 32 (arXiv 1708.04552); 0 turns it off."""

    def __post_init__(self) -> None:
        require(0 <= self.pad <= 16, f"augment.pad is {self.pad}, but must be between 0 and 16 pixels")
        require(0 <= self.cutout <= 32, f"augment.cutout is {self.cutout}, but must be between 0 and 32 pixels")


NO_AUGMENTATION = AugmentConfig(pad=0, flip="none", cutout=0)
