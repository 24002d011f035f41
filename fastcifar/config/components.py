"""The parts of a configuration: augmentation, networks, optimisers, schedule; each refuses what it cannot mean."""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

from fastcifar.errors import UserError

LARGEST_LR = 1e9  # far beyond any use; torch cannot take one that overflows a float32


def require(condition: bool, message: str) -> None:
    """Raises UserError(message) where a value is refused."""
    if not condition:
        raise UserError(message)


def require_finite(config: Any, prefix: str = "") -> None:
    """Refuses NaN and infinities, which pass or fail a comparison by chance, in the float fields of `config`."""
    for item in fields(config):
        value = getattr(config, item.name)
        finite = not isinstance(value, float) or math.isfinite(value)
        require(finite, f"{prefix}{item.name} is {value}, but must be a finite number")


def _require_rates(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        require(0 < value <= LARGEST_LR, f"optimizer.{name} is {value}, but must be above 0 and at most {LARGEST_LR:g}")


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """What happens to a training image, in this order: pad, random crop, flip, resize, cutout."""

    pad: int = 4
    """Pixels added on each side before the crop, 0 to 16; with 0 an image of 32 pixels is not cropped."""
    pad_mode: Literal["zero", "reflect"] = "zero"
    """What is added: black pixels, or the image mirrored at its border without repeating it."""
    flip: Literal["none", "random", "alternating"] = "random"
    """Mirror left to right: never, by a coin each epoch, or every other epoch (arXiv 2404.00498, section 3.6)."""
    cutout: int = 8
    """Side of the square that is replaced by the mean colour, in pixels at 32 (arXiv 1708.04552); 0 turns it off."""
    small: Literal["area", "crop"] = "area"
    """How images below 32 pixels are made: a crop to 32, area-averaged, or a crop to that many pixels."""

    def __post_init__(self) -> None:
        require(0 <= self.pad <= 16, f"augment.pad is {self.pad}, but must be between 0 and 16 pixels")
        require(0 <= self.cutout <= 32, f"augment.cutout is {self.cutout}, but must be between 0 and 32 pixels")


NO_AUGMENTATION = AugmentConfig(pad=0, flip="none", cutout=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResNetConfig:
    """The brief's ResNet (models/resnet.py) and its published variants."""

    width: int = 64
    """Channels of the first layer; the others have 2, 4 and 8 times as many."""
    dropout: float = 0.0
    """Share of channels dropped after each batch norm while training, in [0, 1)."""
    conv_bias: bool = False
    """A bias in the four convolutions outside the residual branches."""
    linear_bias: bool = True
    """A bias in the last layer."""
    layer2_padding: Literal[0, 1] = 1
    """Padding of layer 2's convolution; with 0 its map shrinks from 16 to 14 before it is pooled."""
    layer3_pool: bool = True
    """Whether layer 3's first convolution is pooled."""
    logit_scale: float = 1.0
    """The logits' factor, which divides the rate that the last layer can bear (Page, How to Train Your ResNet)."""

    def __post_init__(self) -> None:
        require_finite(self, "model.")
        require(1 <= self.width <= 1024, f"model.width is {self.width}, but must be between 1 and 1024 channels")
        require(0 <= self.dropout < 1, f"model.dropout is {self.dropout}, but must be at least 0 and below 1")
        require(self.logit_scale > 0, f"model.logit_scale is {self.logit_scale}, but must be above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeedNetConfig:
    """The network of the speed recipes (models/speed.py)."""

    widths: tuple[int, ...] = (64, 256, 256)
    """Channels of each block; a block halves the side of its map."""
    activation: Literal["gelu", "relu", "silu"] = "gelu"
    """After the stem and after each batch norm."""
    bn_momentum: float = 0.4
    """Weight of a new batch in the running statistics, in (0, 1]; short trainings want a short memory."""
    logit_scale: float = 1 / 256
    """Factor on the logits: one over the channels of the last block, for Muon's rates of biases and the last layer."""
    stem_epochs: float = 3.0
    """For how many epochs the stem's bias learns; then, with fixed filters, the backward pass ends before the stem."""
    stem: Literal["whitening", "learned"] = "whitening"
    """The stem's filters: fixed ones that whiten patches of training images, or drawn ones that learn to the end."""
    identity: bool = True
    """Whether filters start as the identity on the channels that a block's convolution shares with its input."""

    def __post_init__(self) -> None:
        require_finite(self, "model.")
        require(
            1 <= len(self.widths) <= 4 and min(self.widths) > 0,
            f"model.widths is {self.widths}, but must be 1 to 4 positive channel counts",
        )
        require(0 < self.bn_momentum <= 1, f"model.bn_momentum is {self.bn_momentum}, but must be in (0, 1]")
        require(self.logit_scale > 0, f"model.logit_scale is {self.logit_scale}, but must be above 0")
        require(self.stem_epochs >= 0, f"model.stem_epochs is {self.stem_epochs}, but must not be negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class ResNet18Config:
    """torchvision's ResNet-18 (models/torchvision_resnet.py; arXiv 1512.03385)."""

    small_stem: bool = True
    """A stem for small images, 3x3 with stride 1 and no pooling; else that for 224 pixels, 7x7 with both."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FfcvNetConfig:
    """The network of FFCV's CIFAR-10 example (models/ffcv_net.py)."""

    width: int = 64
    """Channels of the first layer; the others have 2 and 4 times as many."""
    logit_scale: float = 0.2
    """Factor on the logits."""

    def __post_init__(self) -> None:
        require_finite(self, "model.")
        require(1 <= self.width <= 1024, f"model.width is {self.width}, but must be between 1 and 1024 channels")
        require(self.logit_scale > 0, f"model.logit_scale is {self.logit_scale}, but must be above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class SgdConfig:
    """SGD with momentum on all parameters."""

    lr: float = 0.1
    """Learning rate at the peak of the schedule."""
    momentum: float = 0.9
    """Share of the last update that is kept, in [0, 1)."""
    nesterov: bool = False
    """Look one step of momentum ahead (Sutskever et al., ICML 2013)."""
    weight_decay: float = 0.0
    """Added to the gradient as weight_decay * weight, or, decoupled, taken off the weight times the learning rate."""
    decoupled: bool = False
    """Keep weight decay out of the momentum (arXiv 1711.05101)."""

    def __post_init__(self) -> None:
        require_finite(self, "optimizer.")
        _require_rates(self, "lr")
        require(0 <= self.momentum < 1, f"optimizer.momentum is {self.momentum}, but must be at least 0 and below 1")
        require(self.weight_decay >= 0, f"optimizer.weight_decay is {self.weight_decay}, but must not be negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class AdamConfig:
    """Adam on all parameters (arXiv 1412.6980)."""

    lr: float = 1e-3
    """Learning rate at the peak of the schedule."""
    beta1: float = 0.9
    """Share of the gradients' running mean that is kept, in [0, 1)."""
    beta2: float = 0.999
    """Share of the squared gradients' running mean that is kept, in [0, 1)."""
    eps: float = 1e-8
    """Added to the root of the squared gradients' mean, so that it can be divided by."""
    weight_decay: float = 0.0
    """Added to the gradient as weight_decay * weight, or, decoupled, taken off the weight times the learning rate."""
    decoupled: bool = False
    """Keep weight decay out of both means: AdamW (arXiv 1711.05101)."""

    def __post_init__(self) -> None:
        require_finite(self, "optimizer.")
        _require_rates(self, "lr")
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optimizer.{name} is {value}, but must be at least 0 and below 1")
        require(self.eps > 0, f"optimizer.eps is {self.eps}, but must be above 0")
        require(self.weight_decay >= 0, f"optimizer.weight_decay is {self.weight_decay}, but must not be negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class MuonConfig:
    """Muon on the filters of the convolutions, SGD with Nesterov momentum on biases and on the last layer.

    Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    """

    lr: float = 0.24
    """Peak learning rate of the filters; an update has spectral norm about 1 before it."""
    momentum: float = 0.6
    """Momentum of the filters, Nesterov, in [0, 1)."""
    steps: int = 3
    """Newton-Schulz iterations that orthogonalise an update; 0 only brings it to an orthogonal one's Frobenius norm."""
    bias_lr: float = 0.053
    """Peak learning rate of biases and batch-norm parameters, for a loss summed over a batch: times the batch size for
    the mean. Muon's updates have the same length either way."""
    head_lr: float = 0.67
    """Peak learning rate of the last layer, for a loss summed over a batch."""
    sgd_momentum: float = 0.85
    """Nesterov momentum of biases and of the last layer, in [0, 1)."""
    weight_decay: float = 0.0
    """On what SGD trains, relative: added to the gradient as weight_decay / learning rate * weight."""

    def __post_init__(self) -> None:
        require_finite(self, "optimizer.")
        _require_rates(self, "lr", "bias_lr", "head_lr")
        for name in ("momentum", "sgd_momentum"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optimizer.{name} is {value}, but must be at least 0 and below 1")
        require(0 <= self.steps <= 20, f"optimizer.steps is {self.steps}, but must be between 0 and 20")
        require(self.weight_decay >= 0, f"optimizer.weight_decay is {self.weight_decay}, but must not be negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """One-cycle: from start up to the peak and down to the end, per iteration (arXiv 1708.07120); or one drop."""

    peak_epoch: float = 5.0
    """When the learning rate is highest, in epochs; 0 starts at the peak."""
    start: float = 0.1
    """Learning rate of the first step as a fraction of the peak's."""
    end: float = 0.1
    """Learning rate of the last step as a fraction of the peak's; equal to `start` means no annihilation."""
    anneal: Literal["linear", "cos", "step"] = "linear"
    """The shape of both sides; `step` stays at `start` until `peak_epoch` and at `end` from there on."""

    def __post_init__(self) -> None:
        require_finite(self, "schedule.")
        require(self.peak_epoch >= 0, f"schedule.peak_epoch is {self.peak_epoch}, but must not be negative")
        for name in ("start", "end"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"schedule.{name} is {value}, but must be a fraction between 0 and 1")
