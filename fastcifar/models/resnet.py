"""The brief's ResNet: prep layer, a residual layer, a plain layer, a residual layer, max-pool 4, linear.

6,573,130 parameters and 758.5 MFLOP forward per image (two per multiply-add) with the default options; the options
give the published variants.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from fastcifar.config import CpuKernels, ResNetConfig
from fastcifar.nn.conv_norm_act import conv_norm_act


class ConvNorm(nn.Module):
    """conv -> (max-pool 2) -> BN -> ReLU -> (dropout of channels): (b, c, s, s) to (b, width, s or s // 2, ...)."""

    kernels: CpuKernels = "torch"

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        padding: int = 1,
        pool: bool = False,
        bias: bool = False,
        dropout: float = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, stride, padding, bias=bias)
        self.norm = nn.BatchNorm2d(width)
        self.pool, self.dropout = pool, dropout

    def forward(self, x: Tensor) -> Tensor:
        """(b, channels, s, s) to (b, width, s', s')."""
        x = conv_norm_act(x, self.conv, self.norm, "relu", pool=self.pool, kernels=self.kernels)
        return F.dropout2d(x, self.dropout, self.training) if self.dropout else x


class Residual(nn.Module):
    """x + (conv-BN-ReLU-conv-BN-ReLU)(x), the shape unchanged."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Sequential(ConvNorm(width, width, dropout=dropout), ConvNorm(width, width, dropout=dropout))

    def forward(self, x: Tensor) -> Tensor:
        """(b, width, s, s) to the same."""
        return x + self.inner(x)


class ResNet(nn.Module):
    """(b, 3, 32, 32) to logits (b, classes); any side from 16 to 32 works."""

    def __init__(self, config: ResNetConfig | None = None, classes: int = 10) -> None:
        super().__init__()
        config = ResNetConfig() if config is None else config
        width, dropout, bias = config.width, config.dropout, config.conv_bias
        self.prep = ConvNorm(3, width, bias=bias, dropout=dropout)
        self.layer1 = nn.Sequential(
            ConvNorm(width, 2 * width, pool=True, bias=bias, dropout=dropout), Residual(2 * width, dropout)
        )
        self.layer2 = ConvNorm(
            2 * width, 4 * width, pool=True, bias=bias, padding=config.layer2_padding, dropout=dropout
        )
        self.layer3 = nn.Sequential(
            ConvNorm(4 * width, 8 * width, pool=config.layer3_pool, bias=bias, dropout=dropout),
            Residual(8 * width, dropout),
        )
        self.linear = nn.Linear(8 * width, classes, bias=config.linear_bias)
        self.logit_scale = config.logit_scale

    def forward(self, x: Tensor) -> Tensor:
        """Logits (b, classes)."""
        x = self.layer3(self.layer2(self.layer1(self.prep(x))))
        # max-pool 4 as published, which sees 4x4 of the 7x7 map of the variant without padding and pooling; smaller
        # images make smaller maps, and the variant that pads but does not pool a map of 8x8
        x = F.max_pool2d(x, min(4, x.size(2)))
        return self.linear(x.amax((2, 3))) * self.logit_scale
