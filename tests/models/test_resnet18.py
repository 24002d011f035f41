"""torchvision's ResNet-18 with the stem for small images; the rest of the network is unchanged."""

import pytest
import torch
from torchvision.models import resnet18 as torchvisions

from fastcifar.models.layer_table import layers
from fastcifar.models.resnet18 import ResNet18Config


def test_torchvision_s_stem() -> None:
    table = layers(ResNet18Config(small_stem=False), classes=1000)
    assert table[0].parameters == 11_689_512  # as torchvision documents it
    assert {layer.name: layer.shape for layer in table}["maxpool"] == (64, 8, 8)


def test_only_the_stem_differs_from_torchvision_s_names_and_shapes() -> None:
    torch.manual_seed(0)
    ours, theirs = ResNet18Config().build(10).state_dict(), torchvisions(num_classes=10).state_dict()
    assert list(ours) == list(theirs)
    assert [name for name in ours if ours[name].shape != theirs[name].shape] == ["conv1.weight"]
    # initialised like torchvision's other convolutions
    assert ours["conv1.weight"].std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.1)
