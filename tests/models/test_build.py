"""From a configuration and a seed to weights: repeatable, private, in the layout the kernels like."""

import pytest
import torch

from fastcifar.config import ModelConfig, ResNet18Config, ResNetConfig, SpeedNetConfig
from fastcifar.models.build import build_model, outline
from fastcifar.models.resnet import ResNet
from fastcifar.models.speednet import SpeedNet

CONFIGS = [ResNetConfig(width=4), SpeedNetConfig(widths=(8, 12, 8)), ResNet18Config()]


@pytest.fixture(params=CONFIGS, ids=["resnet", "speed", "resnet18"])
def config(request: pytest.FixtureRequest) -> ModelConfig:
    return request.param


def test_same_seed_same_weights(config: ModelConfig) -> None:
    first, again, other = (build_model(config, 10, seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], again[name]) for name in first)
    learned = [name for name in first if "conv" in name and "weight" in name]
    assert all(not torch.equal(first[name], other[name]) for name in learned if not is_identity(first[name]))


def is_identity(weight: torch.Tensor) -> bool:
    return weight.size(0) <= weight.size(1) and bool((weight.flatten(2)[:, :, 4].diagonal() == 1).all())


def test_the_caller_s_random_numbers_are_left_alone(config: ModelConfig) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    build_model(config, 10, 1)
    assert torch.equal(torch.rand(4), expected)


def test_the_caller_s_random_numbers_have_no_influence(config: ModelConfig) -> None:
    models = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        models.append(build_model(config, 10, 9).state_dict())
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_channels_last_float32(config: ModelConfig) -> None:
    model = build_model(config, 10, 0)
    for p in model.parameters():
        assert p.dtype == torch.float32
        assert p.ndim != 4 or p.is_contiguous(memory_format=torch.channels_last)


def test_kind_and_classes() -> None:
    assert isinstance(build_model(CONFIGS[0], 10, 0), ResNet)
    model = build_model(CONFIGS[1], 4, 0)
    assert isinstance(model, SpeedNet)
    assert model.head.out_features == 4
    assert build_model(CONFIGS[2], 4, 0).get_submodule("fc").out_features == 4


def test_an_outline_has_the_shapes_and_no_numbers(config: ModelConfig) -> None:
    state, shapes = build_model(config, 7, 0).state_dict(), outline(config, 7).state_dict()
    assert {name: t.shape for name, t in state.items()} == {name: t.shape for name, t in shapes.items()}
    assert {t.device.type for t in shapes.values()} == {"meta"}
