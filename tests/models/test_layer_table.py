"""The layer table against torch's FLOP counter and the modules of the networks."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fastcifar.config import ModelConfig
from fastcifar.models.build import outline
from fastcifar.models.ffcv_net import FfcvNetConfig
from fastcifar.models.layer_table import layer_table, layers
from fastcifar.models.resnet import ResNetConfig
from fastcifar.models.resnet18 import ResNet18Config
from fastcifar.models.speednet import SpeedNetConfig
from fastcifar.recipes import RECIPES

CONFIGS = [
    ResNetConfig(),
    ResNetConfig(width=5, conv_bias=True, dropout=0.1, layer3_pool=False),
    SpeedNetConfig(widths=(8,)),
    SpeedNetConfig(widths=(8, 12, 20)),
    FfcvNetConfig(width=4),
    ResNet18Config(),
    ResNet18Config(small_stem=False),
]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(("size", "classes"), [(16, 10), (31, 7)])
def test_all_of_a_network_is_in_its_table_at_any_size(config: ModelConfig, size: int, classes: int) -> None:
    model = outline(config, classes).eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, size, size, device="meta"))
    network, *inner = layers(config, classes, size)
    assert network.flops == counter.get_total_flops()
    assert network.parameters == sum(p.numel() for p in model.parameters())
    assert network.shape == (classes,)
    stages = [layer for layer in inner if layer.depth == 1]
    assert sum(stage.flops for stage in stages) == network.flops
    assert sum(stage.parameters for stage in stages) == network.parameters
    for layer in inner:
        assert layer.kind == type(model.get_submodule(layer.name)).__name__


def test_the_reference_resnet_takes_758_5_mflop() -> None:
    assert round(layers(ResNetConfig())[0].flops / 1e5) / 10 == 758.5


STAGES = [
    ("system_a", "prep", (64, 32, 32), 1_856),
    ("system_a", "layer1", (128, 16, 16), 369_408),
    ("system_a", "layer2", (256, 8, 8), 295_424),
    ("system_a", "layer3", (512, 4, 4), 5_901_312),
    ("system_a", "linear", (10,), 5_130),
    ("system_b", "layer2", (256, 7, 7), 295_424),
    ("system_b", "layer3", (512, 7, 7), 5_901_312),
    ("system_b", "linear", (10,), 5_120),
    ("system_e", "conv1", (64, 32, 32), 1_728),
    ("system_e", "layer1", (64, 32, 32), 147_968),
    ("system_e", "layer2", (128, 16, 16), 525_568),
    ("system_e", "layer3", (256, 8, 8), 2_099_712),
    ("system_e", "layer4", (512, 4, 4), 8_393_728),
    ("system_e", "fc", (10,), 5_130),
]


@pytest.mark.parametrize("recipe", ["system_a", "system_b", "system_e"])
def test_published_shapes_and_parameters_of_the_stages(recipe: str) -> None:
    found = [(recipe, layer.name, layer.shape, layer.parameters) for layer in layers(RECIPES[recipe]().model)]
    assert {row for row in STAGES if row[0] == recipe} <= set(found)


def test_the_table_as_text() -> None:
    lines = layer_table(SpeedNetConfig(widths=(64,)), classes=3, size=16).splitlines()
    assert "16x16" in lines[0]
    assert [line.rstrip() for line in lines[2:] if set(line) != {"-"}] == [
        "layer      kind               output  parameters  MFLOP",
        "stem       Conv2d       24 x 15 x 15         312    0.1",
        "blocks     ModuleList                     50,944    9.8",
        "  0        Block          64 x 7 x 7      50,944    9.8",
        "    conv1  Conv2d       64 x 15 x 15      13,824    6.2",
        "    norm1  BatchNorm2d    64 x 7 x 7         128      -",
        "    conv2  Conv2d         64 x 7 x 7      36,864    3.6",
        "    norm2  BatchNorm2d    64 x 7 x 7         128      -",
        "head       Linear                  3         192    0.0",
        "all        SpeedNet                3      51,448   10.0",
    ]
    assert "relu" not in layer_table(ResNet18Config())  # modules without weights are omitted
