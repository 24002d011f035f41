"""ResNet-18 (arXiv 1512.03385), by default with a stem for small images: 11,173,962 parameters.

Its parameters have the names, shapes and initial values of torchvision's, so weights can be exchanged with torchvision.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from fastcifar.config import Kernels, ModelConfig, register_model
from fastcifar.nn.conv_norm_act import conv_norm_act

WIDTHS = (64, 128, 256, 512)


@register_model("resnet18")
@dataclass(frozen=True, kw_only=True, slots=True)
class ResNet18Config(ModelConfig):
    """ResNet-18 (arXiv 1512.03385), with torchvision's parameters."""

    small_stem: bool = True
    """Use a stem for small images, a 3x3 convolution of stride 1, instead of the 7x7 of stride 2 with a max-pool."""

    def build(self, classes: int) -> nn.Module:
        """See `ModelConfig.build`."""
        return ResNet18(self, classes)


class BasicBlock(nn.Module):
    """relu(shortcut(x) + (conv-BN-ReLU-conv-BN)(x))."""

    kernels: Kernels = "torch"

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """(b, channels, s, s) to (b, width, s / stride, s / stride), rounded up."""
        inner = conv_norm_act(x, self.conv1, self.bn1, "relu", kernels=self.kernels)
        inner = conv_norm_act(inner, self.conv2, self.bn2, "identity", kernels=self.kernels)
        inner += x if self.downsample is None else self.downsample(x)
        return F.relu(inner, inplace=True)


class ResNet18(nn.Module):
    """(b, 3, s, s) to logits (b, classes)."""

    kernels: Kernels = "torch"

    def __init__(self, config: ResNet18Config, classes: int) -> None:
        super().__init__()
        size, stride, padding = (3, 1, 1) if config.small_stem else (7, 2, 3)
        self.conv1 = nn.Conv2d(3, WIDTHS[0], size, stride, padding, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.maxpool = nn.Identity() if config.small_stem else nn.MaxPool2d(3, stride=2, padding=1)
        before = (WIDTHS[0], *WIDTHS)
        for number, width in enumerate(WIDTHS, 1):
            first = BasicBlock(before[number - 1], width, stride=1 if number == 1 else 2)
            self.add_module(f"layer{number}", nn.Sequential(first, BasicBlock(width, width, stride=1)))
        self.fc = nn.Linear(WIDTHS[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Logits (b, classes)."""
        x = self.maxpool(conv_norm_act(x, self.conv1, self.bn1, "relu", kernels=self.kernels))
        for number in range(1, len(WIDTHS) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return self.fc(x.mean((2, 3)))
