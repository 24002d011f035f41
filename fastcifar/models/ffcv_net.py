"""The network of FFCV's CIFAR-10 example, reimplemented: a ResNet of nine layers, 2,274,880 parameters.

Source: `examples/cifar` in FFCV's repository, whose network is based on W. Baek's torchskeleton.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from fastcifar.config import ModelConfig, register_model
from fastcifar.config.components import require, require_finite
from fastcifar.models.resnet import ConvNorm, Residual


@register_model("ffcv")
@dataclass(frozen=True, kw_only=True, slots=True)
class FfcvNetConfig(ModelConfig):
    """The network of FFCV's CIFAR-10 example."""

    width: int = 64
    """Output channels of the first layer, 1 to 1024; the next layers have 2 and 4 times as many."""
    logit_scale: float = 0.2
    """Factor on the logits, above 0."""

    def __post_init__(self) -> None:
        require_finite(self, "model.")
        require(1 <= self.width <= 1024, f"model.width is {self.width}, but must be between 1 and 1024 channels")
        require(self.logit_scale > 0, f"model.logit_scale is {self.logit_scale}, but must be above 0")

    def build(self, classes: int) -> nn.Module:
        """See `ModelConfig.build`."""
        return FfcvNet(self, classes)


class FfcvNet(nn.Module):
    """(b, 3, s, s), s from 16 to 32, to logits (b, classes)."""

    def __init__(self, config: FfcvNetConfig, classes: int = 10) -> None:
        super().__init__()
        width = config.width
        self.prep = ConvNorm(3, width)
        self.down = ConvNorm(width, 2 * width, kernel=5, stride=2, padding=2)
        self.residual1 = Residual(2 * width, dropout=0)
        self.widen = ConvNorm(2 * width, 4 * width)
        self.residual2 = Residual(4 * width, dropout=0)
        self.narrow = ConvNorm(4 * width, 2 * width, padding=0)
        self.linear = nn.Linear(2 * width, classes, bias=False)
        self.logit_scale = config.logit_scale

    def forward(self, x: Tensor) -> Tensor:
        """Logits (b, classes)."""
        x = self.residual1(self.down(self.prep(x)))
        x = F.max_pool2d(self.widen(x), 2)
        x = self.narrow(self.residual2(x))
        return self.linear(x.amax((2, 3))) * self.logit_scale
