"""What the configurations build, the rates that the trainer sets, and the state as tensors."""

from typing import Any

import pytest
import torch
from torch import nn

from fastcifar.config import OptimizerConfig
from fastcifar.config.registry import OPTIMIZERS
from fastcifar.errors import UserError
from fastcifar.optim.adam import AdamConfig
from fastcifar.optim.muon import MuonConfig
from fastcifar.optim.rates import is_capturable, prepare_for_capture, set_lr
from fastcifar.optim.sgd import SgdConfig
from fastcifar.optim.state import load_state_tensors, state_tensors

CONFIGS = [
    SgdConfig(lr=0.3, momentum=0.8, nesterov=True, weight_decay=0.01),
    SgdConfig(lr=0.1, momentum=0.0),
    AdamConfig(lr=0.01, beta1=0.8, beta2=0.9, eps=1e-4, weight_decay=0.1),
    AdamConfig(lr=0.01, weight_decay=0.1, decoupled=True),
    MuonConfig(lr=0.2, weight_decay=0.003),
]


def network() -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def take_step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(5, 3, 6, 6, generator=generator).contiguous(memory_format=torch.channels_last)
    model(images).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_sgd_is_torch_s() -> None:
    model = network()
    (group,) = SgdConfig(lr=0.3, momentum=0.8, nesterov=True, weight_decay=0.01).build(model, 5).param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in model.parameters()]
    assert (group["lr"], group["momentum"], group["nesterov"], group["weight_decay"]) == (0.3, 0.8, True, 0.01)


@pytest.mark.parametrize("decoupled", [False, True])
def test_adam_is_torch_s(decoupled: bool) -> None:
    config = AdamConfig(lr=0.3, beta1=0.8, beta2=0.9, eps=1e-4, weight_decay=0.1, decoupled=decoupled)
    (group,) = config.build(network(), 5).param_groups
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (0.3, (0.8, 0.9), 1e-4, 0.1)
    assert group["decoupled_weight_decay"] is decoupled


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_frozen_parameters_are_left_out(name: str) -> None:
    model = network()
    next(model.parameters()).requires_grad_(False)
    groups = OPTIMIZERS[name]().build(model, 5).param_groups
    assert [p.requires_grad for group in groups for p in group["params"]] == [True] * 3


@pytest.mark.parametrize("config", CONFIGS)
def test_rates_are_a_fraction_of_the_peak_each_time(config: OptimizerConfig) -> None:
    optimizer = config.build(network(), 5)
    peaks = [group["lr"] for group in optimizer.param_groups]
    for lr_scale in (0.5, 0.0, 1.0, 0.25):
        rates = set_lr(optimizer, lr_scale)
        assert list(rates.lr.values()) == [group["lr"] for group in optimizer.param_groups]
        assert list(rates.lr.values()) == [peak * lr_scale for peak in peaks]


def test_names_and_momenta_of_the_groups() -> None:
    model = network()
    assert set_lr(SgdConfig(lr=0.1, momentum=0.7).build(model, 5), 1.0) == ({"all": 0.1}, {"all": 0.7})
    assert set_lr(AdamConfig(lr=0.1, beta1=0.6).build(model, 5), 1.0) == ({"all": 0.1}, {"all": 0.6})
    muon = MuonConfig(lr=0.2, momentum=0.5, bias_lr=0.1, head_lr=0.3, sgd_momentum=0.4).build(model, 2)
    assert set_lr(muon, 1.0) == (
        {"filters": 0.2, "biases": 0.2, "head": 0.6},
        {"filters": 0.5, "biases": 0.4, "head": 0.4},
    )
    plain = torch.optim.RMSprop([{"params": [p]} for p in model.parameters()], lr=0.1)
    assert list(set_lr(plain, 0.5).lr) == ["group 0", "group 1", "group 2", "group 3"]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_tensor_as_learning_rate_makes_the_same_step(config: OptimizerConfig) -> None:
    weights: list[list[torch.Tensor]] = []
    for as_tensor in (False, True):
        model = network()
        optimizer = config.build(model, 5)
        if as_tensor:
            prepare_for_capture(optimizer, torch.device("cpu"))
        peaks = [group["lr"] for group in optimizer.param_groups]
        for step, lr_scale in enumerate((1.0, 0.5, 0.0)):
            set_lr(optimizer, lr_scale)
            take_step(model, optimizer, step)
        assert [isinstance(group["lr"], torch.Tensor) for group in optimizer.param_groups] == [as_tensor] * len(peaks)
        assert not as_tensor or all(group["lr"] is lr for group, lr in zip(optimizer.param_groups, peaks, strict=True))
        weights.append([p.detach().clone() for p in model.parameters()])
    torch.testing.assert_close(weights[0], weights[1])


def test_what_a_graph_can_capture() -> None:
    parameters = list(network().parameters())
    assert is_capturable(MuonConfig().build(network(), 5))
    assert is_capturable(torch.optim.SGD(parameters, fused=True))
    assert is_capturable(torch.optim.Adam(parameters, capturable=True))
    assert not is_capturable(torch.optim.SGD(parameters))


@pytest.mark.parametrize("config", CONFIGS)
def test_a_restored_state_makes_the_same_steps(config: OptimizerConfig) -> None:
    first, second = network(), network()
    optimizer = config.build(first, 5)
    for step in range(2):
        take_step(first, optimizer, step)
    second.load_state_dict(first.state_dict())
    restored = config.build(second, 5)
    saved = {name: tensor.clone().contiguous() for name, tensor in state_tensors(optimizer).items()}
    load_state_tensors(restored, saved, second, config, 5)
    for name, tensor in state_tensors(restored).items():
        assert torch.equal(tensor, saved[name])
        assert tensor.stride() == state_tensors(optimizer)[name].stride()  # channels_last, as the weights
    for step in (2, 3):
        take_step(first, optimizer, step)
        take_step(second, restored, step)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("0.momentum_buffer", torch.zeros(3)),
        ("0.momentum_buffer", torch.zeros(4, 3, 3, 3, dtype=torch.int64)),
        ("0.exp_avg", torch.zeros(4, 3, 3, 3)),
        ("9.momentum_buffer", torch.zeros(4)),
        ("x", torch.zeros(4)),
    ],
)
def test_a_state_of_another_optimizer_is_refused(name: str, tensor: torch.Tensor) -> None:
    model, config = network(), SgdConfig()
    optimizer = config.build(model, 5)
    with pytest.raises(UserError, match=name):
        load_state_tensors(optimizer, {name: tensor}, model, config, 5)
    assert not any(tensor.any() for tensor in state_tensors(optimizer).values())


def test_a_state_that_is_no_tensor_is_named() -> None:
    optimizer: Any = torch.optim.SGD(parameters := list(network().parameters()))
    optimizer.state[parameters[0]]["count"] = 3
    with pytest.raises(UserError, match="count"):
        state_tensors(optimizer)


@pytest.mark.parametrize("config", [SgdConfig(lr=0.1), MuonConfig()])
def test_another_peak_keeps_the_proportions(config: OptimizerConfig) -> None:
    doubled = config.with_lr(2 * config.lr)
    before, after = (set_lr(some.build(network(), 5), 1.0).lr for some in (config, doubled))
    assert after == pytest.approx({name: 2 * lr for name, lr in before.items()})
