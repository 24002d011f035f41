"""The sections of a configuration: augmentation, networks, optimisers, schedule.

Each dataclass checks its values when it is built and raises UserError with the field, its value and what is allowed.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

from fastcifar.errors import UserError, shown

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


def _require_rates(config: Any, *names: str) -> None:
    wanted = f"above 0 and at most {LARGEST_LR:g}"
    require_each(config, "optimizer.", names, lambda rate: 0 < rate <= LARGEST_LR, wanted)


def _require_decays(config: Any, *names: str) -> None:
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
class ResNetConfig:
    """The reference ResNet and its published variants (models/resnet.py)."""

    width: int = 64
    """Output channels of the first layer, 1 to 1024; the next layers have 2, 4 and 8 times as many."""
    dropout: float = 0.0
    """Probability of dropping a channel after each batch norm while training, in [0, 1)."""
    conv_bias: bool = False
    """Add a bias to the four convolutions outside the residual branches."""
    linear_bias: bool = True
    """Add a bias to the last layer."""
    layer2_padding: Literal[0, 1] = 1
    """Padding of layer 2's convolution, in pixels; with 0 its feature map shrinks from 16 to 14 before the pooling."""
    layer3_pool: bool = True
    """Max-pool after layer 3's first convolution."""
    logit_scale: float = 1.0
    """Factor on the logits, above 0.
    A smaller one keeps training stable at a higher learning rate (D. Page, How to Train Your ResNet)."""

    def __post_init__(self) -> None:
        require_finite(self, "model.")
        require(1 <= self.width <= 1024, f"model.width is {self.width}, but must be between 1 and 1024 channels")
        require(0 <= self.dropout < 1, f"model.dropout is {self.dropout}, but must be at least 0 and below 1")
        require(self.logit_scale > 0, f"model.logit_scale is {self.logit_scale}, but must be above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeedNetConfig:
    """The network of the speed recipes (models/speednet.py)."""

    widths: tuple[int, ...] = (64, 256, 256)
    """Output channels of each of the 1 to 4 blocks; a block halves the side of its feature map."""
    activation: Literal["gelu", "relu", "silu"] = "gelu"
    """Activation after the stem and after each batch norm."""
    bn_momentum: float = 0.4
    """Weight of a new batch in the running statistics of batch norm, in (0, 1]; short runs need a large one."""
    logit_scale: float = 1 / 256
    """Factor on the logits, above 0; the recipes use 1 / (channels of the last block)."""
    stem_epochs: float = 3.0
    """Epochs in which the stem's bias learns, 0 or more; afterwards the backward pass skips a whitening stem."""
    stem: Literal["whitening", "learned"] = "whitening"
    """Filters of the stem: fixed to whiten patches of the training images, or initialised at random and learned."""
    identity: bool = True
    """Initialise the convolutions of the blocks as the identity on the channels that input and output share."""

    def __post_init__(self) -> None:
        require_finite(self, "model.")
        require(
            1 <= len(self.widths) <= 4 and min(self.widths) > 0,
            f"model.widths is {shown(self.widths)}, but must be 1 to 4 positive channel counts",
        )
        require(0 < self.bn_momentum <= 1, f"model.bn_momentum is {self.bn_momentum}, but must be in (0, 1]")
        require(self.logit_scale > 0, f"model.logit_scale is {self.logit_scale}, but must be above 0")
        require(self.stem_epochs >= 0, f"model.stem_epochs is {self.stem_epochs}, but must not be negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class ResNet18Config:
    """torchvision's ResNet-18 (models/resnet18.py; arXiv 1512.03385)."""

    small_stem: bool = True
    """Use a stem for small images, a 3x3 convolution of stride 1, instead of the 7x7 of stride 2 with a max-pool."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FfcvNetConfig:
    """The network of FFCV's CIFAR-10 example (models/ffcv_net.py)."""

    width: int = 64
    """Output channels of the first layer, 1 to 1024; the next layers have 2 and 4 times as many."""
    logit_scale: float = 0.2
    """Factor on the logits, above 0."""

    def __post_init__(self) -> None:
        require_finite(self, "model.")
        require(1 <= self.width <= 1024, f"model.width is {self.width}, but must be between 1 and 1024 channels")
        require(self.logit_scale > 0, f"model.logit_scale is {self.logit_scale}, but must be above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class SgdConfig:
    """SGD with momentum on all parameters."""

    lr: float = 0.1
    """Peak learning rate, in (0, 1e9]."""
    momentum: float = 0.9
    """Fraction of the previous update that is kept, in [0, 1)."""
    nesterov: bool = False
    """Use Nesterov momentum (Sutskever et al., ICML 2013)."""
    weight_decay: float = 0.0
    """L2 penalty: weight_decay * weight is added to the gradient; with `decoupled`, AdamW-style decay. 0 or more."""
    decoupled: bool = False
    """Multiply weights by 1 - lr * weight_decay instead, outside the momentum (arXiv 1711.05101)."""

    def __post_init__(self) -> None:
        require_finite(self, "optimizer.")
        _require_rates(self, "lr")
        _require_decays(self, "momentum")
        require(self.weight_decay >= 0, f"optimizer.weight_decay is {self.weight_decay}, but must not be negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class AdamConfig:
    """Adam on all parameters (arXiv 1412.6980)."""

    lr: float = 1e-3
    """Peak learning rate, in (0, 1e9]."""
    beta1: float = 0.9
    """Decay of the running mean of the gradients per step, in [0, 1)."""
    beta2: float = 0.999
    """Decay of the running mean of the squared gradients per step, in [0, 1)."""
    eps: float = 1e-8
    """Added to the denominator, above 0."""
    weight_decay: float = 0.0
    """L2 penalty: weight_decay * weight is added to the gradient; with `decoupled`, AdamW-style decay. 0 or more."""
    decoupled: bool = False
    """Multiply weights by 1 - lr * weight_decay instead, outside both running means: AdamW (arXiv 1711.05101)."""

    def __post_init__(self) -> None:
        require_finite(self, "optimizer.")
        _require_rates(self, "lr")
        _require_decays(self, "beta1", "beta2")
        require(self.eps > 0, f"optimizer.eps is {self.eps}, but must be above 0")
        require(self.weight_decay >= 0, f"optimizer.weight_decay is {self.weight_decay}, but must not be negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class MuonConfig:
    """Muon on the filters of the convolutions; SGD with Nesterov momentum on biases and the last layer.

    Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    """

    lr: float = 0.24
    """Peak learning rate of the filters, in (0, 1e9]; the update it multiplies has a spectral norm of about 1."""
    momentum: float = 0.6
    """Nesterov momentum of the filters, in [0, 1)."""
    steps: int = 3
    """Newton-Schulz iterations that orthogonalise an update, 0 to 20.
    0 only rescales it to Frobenius norm sqrt(min(m, n))."""
    bias_lr: float = 0.053
    """Peak learning rate of biases and batch-norm parameters, in (0, 1e9], for a loss summed over the batch.
    The rate for the mean loss is batch_size times this."""
    head_lr: float = 0.67
    """Peak learning rate of the last layer, in (0, 1e9], for a loss summed over the batch, as `bias_lr`."""
    sgd_momentum: float = 0.85
    """Nesterov momentum of biases and the last layer, in [0, 1)."""
    weight_decay: float = 0.0
    """L2 penalty on biases and the last layer, 0 or more: weight_decay / lr * weight is added to the gradient, where lr
    is their peak rate. Filters have none, as they are rescaled before each step."""

    def __post_init__(self) -> None:
        require_finite(self, "optimizer.")
        _require_rates(self, "lr", "bias_lr", "head_lr")
        _require_decays(self, "momentum", "sgd_momentum")
        require(0 <= self.steps <= 20, f"optimizer.steps is {self.steps}, but must be between 0 and 20")
        require(self.weight_decay >= 0, f"optimizer.weight_decay is {self.weight_decay}, but must not be negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """Learning rate per step: one cycle from `start` up to the peak and down to `end` (arXiv 1708.07120), or a drop."""

    peak_epoch: float = 5.0
    """Epoch of the highest learning rate, 0 or more and at most `epochs`; 0 starts the run at the peak."""
    start: float = 0.1
    """Learning rate of the first step as a fraction of the peak, in [0, 1]."""
    end: float = 0.1
    """Learning rate of the last step as a fraction of the peak, in [0, 1]; equal to `start` for no annihilation."""
    anneal: Literal["linear", "cos", "step"] = "linear"
    """Shape of the rise and the fall; `step` holds `start` until `peak_epoch`, then `end`."""

    def __post_init__(self) -> None:
        require_finite(self, "schedule.")
        require(self.peak_epoch >= 0, f"schedule.peak_epoch is {self.peak_epoch}, but must not be negative")
        require_each(self, "schedule.", ("start", "end"), lambda scale: 0 <= scale <= 1, "between 0 and 1")
