"""torchvision's ResNet-18 (arXiv 1512.03385), by default with a stem for small images: 11,173,962 parameters.

It is torchvision's own module with its parameter names, so weights can be exchanged with torchvision.
"""

from dataclasses import dataclass

from torch import nn

from fastcifar.config import ModelConfig, register_model


@register_model("resnet18")
@dataclass(frozen=True, kw_only=True, slots=True)
class ResNet18Config(ModelConfig):
    """torchvision's ResNet-18 (arXiv 1512.03385)."""

    small_stem: bool = True
    """Use a stem for small images, a 3x3 convolution of stride 1, instead of the 7x7 of stride 2 with a max-pool."""

    def build(self, classes: int) -> nn.Module:
        """See `ModelConfig.build`."""
        from torchvision.models import resnet18  # here, because importing torchvision takes a second

        model = resnet18(weights=None, num_classes=classes)
        if self.small_stem:
            stem = nn.Conv2d(3, 64, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's others
            model.conv1 = stem
            model.add_module("maxpool", nn.Identity())
        return model
