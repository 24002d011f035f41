"""From a configuration and a seed to weights: repeatable, private, channels_last."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from fastcifar.config import ModelConfig, OptimizerConfig
from fastcifar.errors import UserError
from fastcifar.models.build import build_model, cast_weights, outline
from fastcifar.models.ffcv_net import FfcvNetConfig
from fastcifar.models.resnet import ResNetConfig
from fastcifar.models.resnet18 import ResNet18Config
from fastcifar.models.speednet import SpeedNetConfig
from fastcifar.optim.muon import MuonConfig
from fastcifar.optim.sgd import SgdConfig

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


def test_what_is_kept_in_half() -> None:
    """The filters and matrices that learn; in place, and still channels_last."""
    model = build_model(SpeedNetConfig(widths=(8, 8)), 10, 0)
    parameters = dict(model.named_parameters())
    before = {name: p.detach().clone() for name, p in parameters.items()}
    cast_weights(model, torch.bfloat16)
    half = {name for name, p in model.named_parameters() if p.dtype == torch.bfloat16}
    assert half == {"head.weight", *(f"blocks.{block}.conv{conv}.weight" for block in (0, 1) for conv in (1, 2))}
    for name, p in model.named_parameters():
        assert p is parameters[name]
        assert p.ndim != 4 or p.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(p, before[name].to(p.dtype))
    assert {t.dtype for name, t in model.state_dict().items() if "running" in name} == {torch.float32}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(
    "model_config",
    [ResNetConfig(width=8, conv_bias=True, logit_scale=1 / 4), SpeedNetConfig(widths=(16, 16), logit_scale=1 / 16)],
)
@pytest.mark.parametrize("optimizer_config", [MuonConfig(), SgdConfig(lr=0.2)])
def test_weights_in_half_learn(model_config: ModelConfig, optimizer_config: OptimizerConfig, device: str) -> None:
    model = build_model(model_config, 10, 0).train().to(device)
    cast_weights(model, torch.bfloat16)
    optimizer, labels = optimizer_config.build(model, 20), torch.arange(20, device=device) % 10
    images = torch.randn(20, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(device)
    losses: list[float] = []
    for _ in range(12):
        with torch.autocast(device, dtype=torch.bfloat16):
            logits = model(images.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        assert all(p.grad is None or p.grad.dtype == p.dtype for p in model.parameters())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


def test_weights_in_float16_are_refused() -> None:
    """A gradient scaler does not take their gradients."""
    with pytest.raises(UserError, match="float16"):
        cast_weights(build_model(SpeedNetConfig(widths=(8,)), 10, 0), torch.float16)
