"""torchvision's ResNet-18 with the stem for small images: parameters, shapes, and the network unchanged behind it."""

import pytest
import torch
from stages import stage_shapes
from torchvision.models import resnet18 as torchvisions

from fastcifar.config import ResNet18Config
from fastcifar.models.resnet18 import resnet18

STAGES = ("maxpool", "layer1", "layer2", "layer3", "layer4", "fc")


def test_system_e() -> None:
    model = resnet18()
    assert sum(p.numel() for p in model.parameters()) == 11_173_962
    assert stage_shapes(model, STAGES, 32) == [
        (64, 32, 32),
        (64, 32, 32),
        (128, 16, 16),
        (256, 8, 8),
        (512, 4, 4),
        (10,),
    ]


def test_the_stem_of_torchvision() -> None:
    model = resnet18(ResNet18Config(small_stem=False), classes=1000)
    assert sum(p.numel() for p in model.parameters()) == 11_689_512  # as torchvision documents it
    assert stage_shapes(model, STAGES, 32)[0] == (64, 8, 8)


@pytest.mark.parametrize("side", [16, 17, 24, 31])
def test_smaller_images(side: int) -> None:
    assert stage_shapes(resnet18(), STAGES, side)[-1] == (10,)


def test_all_but_the_stem_has_torchvision_s_names_and_shapes() -> None:
    ours, theirs = resnet18().state_dict(), torchvisions(num_classes=10).state_dict()
    assert list(ours) == list(theirs)
    assert [name for name in ours if ours[name].shape != theirs[name].shape] == ["conv1.weight"]


def test_the_stem_is_drawn_like_the_other_convolutions() -> None:
    torch.manual_seed(0)
    weight = resnet18().state_dict()["conv1.weight"]
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.1)
