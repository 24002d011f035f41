"""The network of the speed recipes: a whitening stem and three blocks of two convolutions, no residual branches.

Sources: network and whitening stem, K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (arXiv 2404.00498);
identity initialisation, S. Zagoruyko and N. Komodakis, "DiracNets" (arXiv 1706.00388).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcifar.config import Kernels, ModelConfig, register_model
from fastcifar.config.components import require, require_finite
from fastcifar.errors import shown
from fastcifar.nn.conv_norm_act import activate, conv_norm_act

WHITENING_IMAGES = 5000
"""Images for `SpeedNet.whiten`: enough, as each has 961 patches for a 12 x 12 covariance matrix."""
PATCH = 2
STEM_CHANNELS = 2 * 3 * PATCH * PATCH


@register_model("speed")
@dataclass(frozen=True, kw_only=True, slots=True)
class SpeedNetConfig(ModelConfig):
    """The network of the speed recipes."""

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

    @property
    def min_image_size(self) -> int:
        """The stem removes one pixel, and each block halves the side."""
        return 2 ** len(self.widths) + 1

    def build(self, classes: int) -> nn.Module:
        """See `ModelConfig.build`."""
        return SpeedNet(self, classes)


class Block(nn.Module):
    """conv 3x3 -> max-pool 2 -> BN -> act -> conv 3x3 -> BN -> act."""

    kernels: Kernels = "torch"

    def __init__(self, channels: int, width: int, bn_momentum: float, activation: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm1 = _norm(width, bn_momentum)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = _norm(width, bn_momentum)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(b, channels, s, s) to (b, width, s // 2, s // 2)."""
        x = conv_norm_act(x, self.conv1, self.norm1, self.activation, pool=True, kernels=self.kernels)
        return conv_norm_act(x, self.conv2, self.norm2, self.activation, kernels=self.kernels)


class SpeedNet(nn.Module):
    """(b, 3, s, s), s from 16 to 32, normalised, to logits (b, classes).

    The training images set the filters of the stem before the first step; only its bias learns then. With `stem`
    "learned" its filters are initialised at random and learn too. Batch norm has no learned scale, as in the source.
    """

    kernels: Kernels = "torch"

    def __init__(self, config: SpeedNetConfig, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, STEM_CHANNELS, PATCH, bias=True)
        self.stem.weight.requires_grad_(config.stem == "learned")
        self.blocks = nn.ModuleList(
            Block(before, after, config.bn_momentum, config.activation)
            for before, after in pairwise((STEM_CHANNELS, *config.widths))
        )
        self.activation = config.activation
        self.identity = config.identity
        self.head = nn.Linear(config.widths[-1], classes, bias=False)
        self.logit_scale = config.logit_scale
        self.stem_epochs = config.stem_epochs

    @torch.no_grad()
    def init_from_generator(self, generator: torch.Generator) -> None:
        """See `hooks.InitFromGenerator`; with `identity`, blocks pass on the channels that input and output share."""
        assert self.stem.bias is not None
        self.stem.bias.zero_()
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.weight.requires_grad:  # a fixed stem is set by `whiten`
                bound = module.weight[0].numel() ** -0.5
                module.weight.uniform_(-bound, bound, generator=generator)
                if self.identity and module is not self.stem:
                    shared = min(module.in_channels, module.out_channels)
                    nn.init.dirac_(module.weight[:shared, :shared])
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
        self.head.weight.normal_(generator=generator)
        self.head.weight.div_(self.head.weight.std())

    def init_from_data(self, images: Callable[[int], Tensor]) -> None:
        """See `hooks.InitFromData`: whitens a fixed stem."""
        if not self.stem.weight.requires_grad:
            self.whiten(images(WHITENING_IMAGES))

    def before_step(self, step: int, steps_per_epoch: int) -> None:
        """See `hooks.BeforeStep`: the stem's bias learns first; then the backward pass skips a fixed stem."""
        assert self.stem.bias is not None
        self.stem.bias.requires_grad_(step < self.stem_epochs * steps_per_epoch)

    @torch.no_grad()
    def whiten(self, images: Tensor, eps: float = 5e-4) -> None:
        """Sets the stem to the whitening filters of the patches of `images` (n, 3, s, s), and their negatives.

        `images` on any device, which multiplies the patches; the eigenvectors are computed on the CPU. A filter is an
        eigenvector of the patches' covariance, divided by the root of its eigenvalue plus `eps`.
        """
        channels, count = STEM_CHANNELS // 2, 0
        products: list[Tensor] = []
        for chunk in images.float().split(500):  # 23 MB of patches at a time
            patches = F.unfold(chunk, PATCH).transpose(1, 2).reshape(-1, channels)
            products.append(patches.T @ patches)
            count += len(patches)
        covariance = torch.zeros(channels, channels, dtype=torch.float64)
        for product in torch.stack(products).cpu():  # one copy from the device, which may lack float64
            covariance += product
        covariance /= count
        values, vectors = torch.linalg.eigh(covariance)
        filters = (vectors / (values + eps).sqrt()).T.flip(0).reshape(-1, 3, PATCH, PATCH)
        self.stem.weight.copy_(torch.cat((filters, -filters)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (b, classes)."""
        x = activate(self.stem(x), self.activation, kernels=self.kernels)
        for block in self.blocks:
            x = block(x)
        return self.head(x.amax((2, 3))) * self.logit_scale


def _norm(width: int, momentum: float) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(width, momentum=momentum, eps=1e-12)
    norm.weight.requires_grad_(False)
    return norm
