"""From a configuration and a seed to weights: repeatable, private, channels_last."""

from dataclasses import replace

import pytest
import torch

from fastcifar.config import ModelConfig
from fastcifar.models.build import build_model, outline
from fastcifar.models.ffcv_net import FfcvNetConfig
from fastcifar.models.resnet import ResNetConfig
from fastcifar.models.resnet18 import ResNet18Config
from fastcifar.models.speednet import SpeedNetConfig

CONFIGS = [
    ResNetConfig(width=4),
    SpeedNetConfig(widths=(8, 12, 8)),
    SpeedNetConfig(widths=(8,), stem="learned"),
    FfcvNetConfig(width=4),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_weights_are_channels_last_and_depend_on_the_seed_alone(config: ModelConfig) -> None:
    torch.manual_seed(3)
    model = build_model(config, 10, 5)
    after = torch.rand(4)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(4), after)  # torch's global generator is left as it was
    again, other = (build_model(config, 10, seed).state_dict() for seed in (5, 6))
    for name, p in model.named_parameters():
        assert p.dtype == torch.float32
        assert p.ndim != 4 or p.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(p, again[name])
        if p.ndim == 4 and not is_identity(p):
            assert not torch.equal(p, other[name])


def is_identity(weight: torch.Tensor) -> bool:
    return weight.size(0) <= weight.size(1) and bool((weight.flatten(2)[:, :, 4].diagonal() == 1).all())


@pytest.mark.parametrize("config", [*CONFIGS, ResNet18Config()])
def test_an_outline_has_the_shapes_and_no_values(config: ModelConfig) -> None:
    state, shapes = build_model(config, 7, 0).state_dict(), outline(config, 7).state_dict()
    assert {name: t.shape for name, t in state.items()} == {name: t.shape for name, t in shapes.items()}
    assert {t.device.type for t in shapes.values()} == {"meta"}


@pytest.mark.parametrize(
    "config",
    [
        ResNetConfig(width=4, logit_scale=1 / 8),
        SpeedNetConfig(widths=(8,), logit_scale=1 / 4),
        FfcvNetConfig(width=4, logit_scale=1 / 2),
    ],
)
def test_logits_are_scaled(config: ResNetConfig | SpeedNetConfig | FfcvNetConfig) -> None:
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    scaled, plain = (build_model(c, 10, 0).eval()(x) for c in (config, replace(config, logit_scale=1.0)))
    assert torch.equal(scaled, plain * config.logit_scale)
