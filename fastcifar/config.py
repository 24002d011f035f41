"""Every tunable, as frozen dataclasses: unit, meaning, source. The command line and the TOML files are these fields."""

import math
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from fastcifar.errors import UserError

LARGEST_SEED = 2**63 - 1
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
    """What happens to a training picture, in this order: pad, random crop, flip, resize, cutout."""

    pad: int = 4
    """Pixels added on each side before the crop, 0 to 16; with 0 a picture of 32 pixels is not cropped."""
    pad_mode: Literal["zero", "reflect"] = "zero"
    """What is added: black pixels, or the picture mirrored at its border without repeating it."""
    flip: Literal["none", "random", "alternating"] = "random"
    """Mirror left to right: never, by a coin each epoch, or every other epoch (arXiv 2404.00498, section 3.6)."""
    cutout: int = 8
    """Side of the square that is replaced by the mean colour, in pixels at 32 (arXiv 1708.04552); 0 turns it off."""
    small: Literal["area", "crop"] = "area"
    """How pictures below 32 pixels are made: a crop to 32, area-averaged, or a crop to that many pixels."""

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
    logit_scale: float = 1 / 9
    """Factor on the logits."""
    stem_epochs: float = 3.0
    """For how many epochs the stem's bias learns; afterwards the backward pass ends at the first block."""

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
class MuonConfig:
    """Muon on the filters of the convolutions, SGD with Nesterov momentum on biases and on the last layer.

    Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    """

    lr: float = 0.24
    """Peak learning rate of the filters; an update has spectral norm about 1 before it."""
    momentum: float = 0.6
    """Momentum of the filters, Nesterov, in [0, 1)."""
    steps: int = 3
    """Newton-Schulz iterations that orthogonalise an update."""
    bias_lr: float = 0.053
    """Peak learning rate of biases and batch-norm parameters."""
    head_lr: float = 0.67
    """Peak learning rate of the last layer."""
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
        require(1 <= self.steps <= 20, f"optimizer.steps is {self.steps}, but must be between 1 and 20")
        require(self.weight_decay >= 0, f"optimizer.weight_decay is {self.weight_decay}, but must not be negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """One-cycle: from start up to the peak and down to the end, per iteration (arXiv 1708.07120)."""

    peak_epoch: float = 5.0
    """When the learning rate is highest, in epochs; 0 starts at the peak."""
    start: float = 0.1
    """Learning rate of the first step as a share of the peak's."""
    end: float = 0.1
    """Learning rate of the last step as a share of the peak's; equal to `start` means no annihilation."""
    anneal: Literal["linear", "cos"] = "linear"
    """The shape of both sides."""

    def __post_init__(self) -> None:
        require_finite(self, "schedule.")
        require(self.peak_epoch >= 0, f"schedule.peak_epoch is {self.peak_epoch}, but must not be negative")
        for name in ("start", "end"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"schedule.{name} is {value}, but must be a share between 0 and 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """A whole training run. What is not given comes from the recipe."""

    recipe: str = "smoke"
    """The named recipe these values started from."""
    seed: int = 0
    """Everything random in the run follows from it, 0 to 2**63 - 1."""
    epochs: float = 24.0
    """Passes over the training set; a fraction ends within an epoch."""
    batch_size: int = 512
    """Pictures a step; a last, smaller batch of an epoch is left out."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes, in [0, 1) (arXiv 1512.00567)."""
    resolution: tuple[tuple[float, int], ...] = ((1.0, 32),)
    """Side of the training pictures: (share of the steps until which, pixels), ascending shares, the last one 1."""
    evaluation: Literal["plain", "mirrored"] = "plain"
    """The evaluation that counts: one view of a test picture, or the sum of the logits of it and its mirror image."""
    evaluate_every: int = 0
    """Epochs between evaluations while training, off the train clock; 0 evaluates at the end only."""
    evaluation_batch_size: int = 1000
    """Pictures a batch in evaluations; no influence on the result."""
    model: ResNetConfig | SpeedNetConfig = field(default_factory=ResNetConfig)
    """The network."""
    optimizer: SgdConfig | MuonConfig = field(default_factory=SgdConfig)
    """The optimiser."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Learning rate against steps."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """What happens to the training pictures."""
    loader: Literal["auto", "resident", "stream"] = "auto"
    """Pictures in memory, or FFCV's streaming reader, with the same batches; auto takes memory where they fit well."""
    amp: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the arithmetic in the network; auto takes the fastest that the device supports well."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes the GPU where there is one."""
    threads: int | None = None
    """CPU threads; None leaves torch's choice. Bits repeat for the same number."""
    data: Path = Path("data")
    """Folder that `python -m fastcifar.prepare` wrote."""
    runs: Path = Path("runs")
    """Folder in which the run's own folder is made."""

    def __post_init__(self) -> None:
        require(0 <= self.seed <= LARGEST_SEED, f"seed is {self.seed}, but must be between 0 and 2**63 - 1")
        require_finite(self)
        require(0 < self.epochs <= 1e6, f"epochs is {self.epochs}, but must be above 0 and at most a million")
        for name in ("batch_size", "evaluation_batch_size"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}, but must be at least 1")
        smoothing = self.label_smoothing
        require(0 <= smoothing < 1, f"label_smoothing is {smoothing}, but must be at least 0 and below 1")
        require(self.evaluate_every >= 0, f"evaluate_every is {self.evaluate_every}, but must not be negative")
        require(self.threads is None or 1 <= self.threads <= 1024, f"threads is {self.threads}, but must be 1 to 1024")
        require(
            self.schedule.peak_epoch <= self.epochs,
            f"schedule.peak_epoch is {self.schedule.peak_epoch:g}, but the run ends at epoch {self.epochs:g}; lower it",
        )
        self._check_resolution()

    def _check_resolution(self) -> None:
        shares = [share for share, _ in self.resolution]
        require(
            bool(shares) and all(a < b for a, b in pairwise([0.0, *shares])) and shares[-1] == 1,
            f"resolution is {self.resolution}, but its shares must ascend to 1",
        )
        require(
            all(16 <= size <= 32 for _, size in self.resolution),
            f"resolution is {self.resolution}, but its sides must be between 16 and 32 pixels",
        )
        if isinstance(self.model, SpeedNetConfig):
            smallest, blocks = min(size for _, size in self.resolution), len(self.model.widths)
            require(
                smallest - 1 >= 2**blocks,  # the stem takes a pixel, a block halves
                f"resolution goes down to {smallest} pixels, too few for the {blocks} blocks of model.widths",
            )
