"""The network of the speed recipes: a whitening stem and three blocks of two convolutions, no residual branches.

Sources of the ideas: whitening stem and alternating design, K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single
GPU" (arXiv 2404.00498); identity initialisation, S. Zagoruyko and N. Komodakis, "DiracNets" (arXiv 1706.00388).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcifar.config import CpuKernels, SpeedNetConfig
from fastcifar.nn.conv_norm_act import activate, conv_norm_act

WHITENING_IMAGES = 5000
"""Enough for the stem: its filters come from the covariance of 12 numbers a patch, and an image has 961 patches."""
PATCH = 2
STEM_CHANNELS = 2 * 3 * PATCH * PATCH


class Block(nn.Module):
    """conv 3x3 -> max-pool 2 -> BN -> act -> conv 3x3 -> BN -> act: (b, c, s, s) to (b, width, s // 2, s // 2)."""

    kernels: CpuKernels = "torch"

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
    """(b, 3, s, s), s from 16 to 32, to logits (b, classes); the images normalised, the logits scaled.

    The stem is fixed by `whiten` from training images before the first step, and only its bias learns, unless the
    configuration has its filters drawn and learn as well. BN has no learned scale: the filters' own norms carry it.
    """

    kernels: CpuKernels = "torch"

    def __init__(self, config: SpeedNetConfig | None = None, classes: int = 10) -> None:
        super().__init__()
        config = SpeedNetConfig() if config is None else config
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

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Draws the weights; a block's filters start as the identity on the channels they share with their input."""
        assert self.stem.bias is not None
        self.stem.bias.zero_()
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.weight.requires_grad:  # a fixed stem's come from `whiten`
                bound = module.weight[0].numel() ** -0.5
                module.weight.uniform_(-bound, bound, generator=generator)
                if self.identity and module is not self.stem:
                    shared = min(module.in_channels, module.out_channels)
                    nn.init.dirac_(module.weight[:shared, :shared])
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
        self.head.weight.normal_(generator=generator)
        self.head.weight.div_(self.head.weight.std())

    @torch.no_grad()
    def whiten(self, images: Tensor, eps: float = 5e-4) -> None:
        """Sets the stem to the whitening filters of `images` (n, 3, s, s): patch eigenvectors and their negatives."""
        channels, count = STEM_CHANNELS // 2, 0
        covariance = torch.zeros(channels, channels, dtype=torch.float64)
        for chunk in images.float().split(500):  # 23 MB of patches at a time
            patches = F.unfold(chunk, PATCH).transpose(1, 2).reshape(-1, channels)
            covariance += patches.T @ patches
            count += len(patches)
        covariance /= count
        values, vectors = torch.linalg.eigh(covariance)
        filters = (vectors / (values + eps).sqrt()).T.flip(0).reshape(-1, 3, PATCH, PATCH)
        self.stem.weight.copy_(torch.cat((filters, -filters)))

    def stem_learns(self, learns: bool) -> None:
        """Whether the stem's bias gets a gradient; without, that of a fixed stem ends at the first block."""
        assert self.stem.bias is not None
        self.stem.bias.requires_grad_(learns)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (b, classes)."""
        x = activate(self.stem(x), self.activation, kernels=self.kernels)
        for block in self.blocks:
            x = block(x)
        x = x.amax((2, 3))
        return self.head(x) * self.logit_scale


def _norm(width: int, momentum: float) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(width, momentum=momentum, eps=1e-12)
    norm.weight.requires_grad_(False)
    return norm
