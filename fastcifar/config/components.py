"""What the trainer knows about a component: the base class of each kind, and the checks that their fields share.

A component is a frozen dataclass that derives from one of these classes. It lives in one file with its implementation
and its registration (`registry.py`); nothing else in the package names it. Every field needs a default, checks its
range when the dataclass is built, and raises UserError with its name, its value and what is allowed.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

from fastcifar.errors import UserError

if TYPE_CHECKING:  # this package is read by commands that never need torch
    import torch
    from torch import Tensor, nn

LARGEST_LR = 1e9  # far above any useful rate; torch fails on one that overflows float32


def require(condition: bool, message: str) -> None:
    """Raises UserError(message) unless `condition` holds."""
    if not condition:
        raise UserError(message)


def require_each(config: Any, prefix: str, names: tuple[str, ...], allowed: Callable[[Any], bool], wanted: str) -> None:
    """Raises UserError unless each of the fields `names` is `allowed`; `wanted` describes an allowed value in words."""
    for name in names:
        value = getattr(config, name)
        require(allowed(value), f"{prefix}{name} is {value}, but must be {wanted}")


def require_finite(config: Any, prefix: str = "") -> None:
    """Raises UserError if a float field of `config` is NaN or infinite, which comparisons alone might let pass."""
    floats = tuple(item.name for item in fields(config) if isinstance(getattr(config, item.name), float))
    require_each(config, prefix, floats, math.isfinite, "a finite number")


def require_rates(config: Any, *names: str) -> None:
    """Raises UserError unless each of these learning rates of an optimiser is in (0, 1e9]."""
    wanted = f"above 0 and at most {LARGEST_LR:g}"
    require_each(config, "optimizer.", names, lambda rate: 0 < rate <= LARGEST_LR, wanted)


def require_decays(config: Any, *names: str) -> None:
    """Raises UserError unless each of these factors per step of an optimiser is in [0, 1)."""
    require_each(config, "optimizer.", names, lambda factor: 0 <= factor < 1, "at least 0 and below 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """Augmentation of training images, applied in this order: pad, random crop, flip, resize, cutout."""

    pad: int = 4
    """Padding on each side before the random crop, 0 to 16 pixels; 0 turns off both for images of 32 pixels."""
    pad_mode: Literal["zero", "reflect"] = "zero"
    """Padding with black pixels, or by reflection at the border, as numpy.pad does it."""
    flip: Literal["none", "random", "alternating"] = "random"
    """Horizontal flip: never; at random with probability 1/2; or alternating, in every other epoch.
    With alternating, a random half of the images starts flipped (arXiv 2404.00498, section 3.6)."""
    cutout: int = 8
    """Side of a square set to the mean colour, 0 (off) to 32 pixels of a 32-pixel image (arXiv 1708.04552)."""
    small: Literal["area", "crop"] = "area"
    """How to make training images below 32 pixels: average a 32-pixel crop down, or crop to the smaller side."""

    def __post_init__(self) -> None:
        require(0 <= self.pad <= 16, f"augment.pad is {self.pad}, but must be between 0 and 16 pixels")
        require(0 <= self.cutout <= 32, f"augment.cutout is {self.cutout}, but must be between 0 and 32 pixels")


NO_AUGMENTATION = AugmentConfig(pad=0, flip="none", cutout=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig(ABC):
    """A network. The module that `build` returns may define the hooks of `models/hooks.py`."""

    @property
    def min_image_size(self) -> int:
        """Smallest side of an image that the network accepts, in pixels."""
        return 1

    @abstractmethod
    def build(self, classes: int) -> "nn.Module":
        """The network, from normalised images (n, 3, s, s) to logits (n, classes), initialised by torch's generator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig(ABC):
    """An optimiser."""

    lr: float = 0.1
    """Peak learning rate, in (0, 1e9]."""

    @abstractmethod
    def build(self, model: "nn.Module", batch_size: int) -> "torch.optim.Optimizer":
        """The optimiser of the parameters of `model` that learn, for gradients of the mean loss over a batch.

        The `lr` of each parameter group is its peak; the trainer multiplies it by the schedule's `lr_scale`. A group
        may have a "name", by which its rate is logged. The state must consist of tensors of single parameters, which
        all exist after the first step: checkpoints hold nothing else.
        """

    def with_lr(self, lr: float) -> Self:
        """A copy with another peak rate; the fields called `*_lr` keep their proportion to it."""
        factor = lr / self.lr
        others = {item.name: getattr(self, item.name) * factor for item in fields(self) if item.name.endswith("_lr")}
        return replace(self, lr=lr, **others)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig(ABC):
    """A learning-rate schedule: a pure function of the step, so a resumed run continues without any replay."""

    @abstractmethod
    def lr_scale(self, step: int, total: int, epochs: float) -> float:
        """The learning rate of `step` in [0, total) as a fraction of the peak, in [0, 1], for a run of `epochs`."""

    def check(self, epochs: float) -> None:  # noqa: B027  (a hook: overriding it is optional)
        """Raises UserError if the schedule does not fit a run of `epochs`; any does by default."""

    def with_ends(self, lr_scale: float) -> Self:
        """A copy that starts and ends at `lr_scale`; by default the schedule itself, whose ends are its own."""
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig(ABC):
    """A way to compute the logits of the test images, whose accuracy may be the primary metric."""

    title: ClassVar[str] = ""
    """Display name, such as "flip TTA"; empty for the registered name."""
    summary: ClassVar[str] = "logits of several views of an image"
    """What the logits are, in words."""

    @abstractmethod
    def logits(
        self,
        predict: Callable[["Tensor"], "Tensor"],
        batches: "Iterable[tuple[Tensor, Tensor]]",
        single_view: "Tensor",
    ) -> "Tensor":
        """Logits float32 (n, classes), on any device.

        `predict`: logits float32 (b, classes) of images (b, 3, s, s), a new tensor on the device of the run; b may
        change from call to call. `batches`: (images, labels) on that device, once over the set. `single_view`: float32
        (n, classes) on that device, the logits of each image by itself. Leave all of it there: a copy to the CPU waits
        for the GPU.
        """


class Draws(Protocol):
    """The random numbers of an augmentation op, a pure function of (seed, epoch, sample index, number)."""

    def uniform(self, number: int) -> "Tensor":
        """Draw `number` (0, 1, ...) of each image: float32 (n,) in [0, 1), on the device of the images."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentOp(ABC):
    """An operation on batches of training images, after the fused kernel."""

    @abstractmethod
    def apply(self, images: "Tensor", draws: Draws) -> "Tensor":
        """One batch (n, 3, s, s), normalised, channels_last, on its device, to the same shape and dtype.

        Must neither keep nor change `images`.
        """
