"""The reference ResNet, which the recipes `resnet24` and `system_a` to `system_d` train.

    prep    conv-BN-ReLU                          64 x 32 x 32
    layer1  conv-pool-BN-ReLU, residual block    128 x 16 x 16
    layer2  conv-pool-BN-ReLU                    256 x 8 x 8
    layer3  conv-pool-BN-ReLU, residual block    512 x 4 x 4
    linear  max-pool 4, linear                   10

By default it has 6,573,130 parameters and takes 758.5 MFLOP forward per image (two per multiply-add). The options of
`ResNetConfig` give its published variants.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from fastcifar.config import Kernels, ModelConfig, register_model
from fastcifar.config.components import require, require_finite
from fastcifar.nn.conv_norm_act import conv_norm_act


@register_model("resnet")
@dataclass(frozen=True, kw_only=True, slots=True)
class ResNetConfig(ModelConfig):
    """The reference ResNet and its published variants."""

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

    def build(self, classes: int) -> nn.Module:
        """See `ModelConfig.build`."""
        return ResNet(self, classes)


class ConvNorm(nn.Module):
    """conv -> (max-pool 2) -> BN -> ReLU -> (dropout of channels)."""

    kernels: Kernels = "torch"

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
        """(b, channels, s, s) to (b, width, s', s'); s' depends on stride and padding and is halved by the pooling."""
        x = conv_norm_act(x, self.conv, self.norm, "relu", pool=self.pool, kernels=self.kernels)
        return F.dropout2d(x, self.dropout, self.training) if self.dropout else x


class Residual(nn.Module):
    """x + (conv-BN-ReLU-conv-BN-ReLU)(x)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Sequential(ConvNorm(width, width, dropout=dropout), ConvNorm(width, width, dropout=dropout))

    def forward(self, x: Tensor) -> Tensor:
        """(b, width, s, s) to the same shape."""
        return x + self.inner(x)


class ResNet(nn.Module):
    """(b, 3, s, s), s from 16 to 32, to logits (b, classes)."""

    def __init__(self, config: ResNetConfig, classes: int = 10) -> None:
        super().__init__()
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
        # max-pool 4, as published. It ignores the border of the 7x7 feature map of the variant without padding and
        # pooling. Smaller images give smaller feature maps; unpooled padded ones of 8x8 leave a 2x2 for the amax below.
        x = F.max_pool2d(x, min(4, x.size(2)))
        return self.linear(x.amax((2, 3))) * self.logit_scale
