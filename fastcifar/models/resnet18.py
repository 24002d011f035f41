"""torchvision's ResNet-18 (arXiv 1512.03385), by default with a stem for small images: 11,173,962 parameters."""

from torch import nn

from fastcifar.config import ResNet18Config


def resnet18(config: ResNet18Config, classes: int = 10) -> nn.Module:
    """(b, 3, s, s), s from 16 to 32, to logits (b, classes).

    It is torchvision's own module with its parameter names, so weights can be exchanged with torchvision.
    """
    from torchvision.models import resnet18 as build  # here, because importing torchvision takes a second

    model = build(weights=None, num_classes=classes)
    if config.small_stem:
        stem = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's others
        model.conv1 = stem
        model.add_module("maxpool", nn.Identity())
    return model
