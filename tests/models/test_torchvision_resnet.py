"""torchvision's ResNet-18 with the stem for small pictures: parameters, shapes, and the network unchanged behind it."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18 as torchvisions

from fastcifar.config import ResNet18Config
from fastcifar.models.torchvision_resnet import resnet18


def stage_shapes(model: nn.Module, side: int) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = []

    def note(module: nn.Module, inputs: Sequence[Tensor], output: Tensor) -> None:
        shapes.append(tuple(output.shape[1:]))

    for name in ("maxpool", "layer1", "layer2", "layer3", "layer4", "fc"):
        model.get_submodule(name).register_forward_hook(note)
    model.eval()(torch.zeros(1, 3, side, side))
    return shapes


def test_system_e() -> None:
    model = resnet18()
    assert sum(p.numel() for p in model.parameters()) == 11_173_962
    assert stage_shapes(model, 32) == [(64, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (10,)]


def test_the_stem_of_torchvision() -> None:
    model = resnet18(ResNet18Config(small_stem=False), classes=1000)
    assert sum(p.numel() for p in model.parameters()) == 11_689_512  # as torchvision documents it
    assert stage_shapes(model, 32)[0] == (64, 8, 8)


@pytest.mark.parametrize("side", [16, 17, 24, 31])
def test_smaller_pictures(side: int) -> None:
    assert stage_shapes(resnet18(), side)[-1] == (10,)


def test_all_but_the_stem_has_torchvision_s_names_and_shapes() -> None:
    ours, theirs = resnet18().state_dict(), torchvisions(num_classes=10).state_dict()
    assert list(ours) == list(theirs)
    assert [name for name in ours if ours[name].shape != theirs[name].shape] == ["conv1.weight"]


def test_the_stem_is_drawn_like_the_other_convolutions() -> None:
    torch.manual_seed(0)
    weight = resnet18().state_dict()["conv1.weight"]
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.1)
