"""SGD, Adam and AdamW against torch's bit for bit; decoupled weight decay of SGD, which torch lacks, by its formula."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fastcifar.config import AdamConfig, SgdConfig
from fastcifar.optim.adam import Adam
from fastcifar.optim.build import Combined, build_optimizer
from fastcifar.optim.sgd import Sgd

LR_SCALES = [0.1, 0.55, 1.0, 0.7, 0.0, 0.3]


def weights() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in ((4, 3), (5,), (2, 3, 3, 3))]


def gradients(step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    return [torch.randn(w.shape, generator=generator) for w in weights()]


def check_equal_steps(ours: list[torch.Tensor], optimizer: Sgd | Adam, theirs: list[torch.Tensor], torchs: Any) -> None:
    lr = torchs.param_groups[0]["lr"]
    for step, lr_scale in enumerate(LR_SCALES * 3):
        for mine, other, gradient in zip(ours, theirs, gradients(step), strict=True):
            mine.grad, other.grad = gradient.clone(), gradient.clone()
        torchs.param_groups[0]["lr"] = lr * lr_scale
        optimizer.step(lr_scale)
        torchs.step()
        for mine, other, gradient in zip(ours, theirs, gradients(step), strict=True):
            assert torch.equal(mine, other)
            assert mine.grad is not None
            assert torch.equal(mine.grad, gradient)  # left as it was


@pytest.mark.parametrize("weight_decay", [0.0, 5e-4, 0.3])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True), (0.5, True)])
def test_sgd_equals_torch_s(momentum: float, nesterov: bool, weight_decay: float) -> None:
    ours, theirs = weights(), weights()
    options = {"lr": 0.4, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    check_equal_steps(ours, Sgd(ours, **options), theirs, torch.optim.SGD(theirs, foreach=False, **options))


@pytest.mark.parametrize("weight_decay", [0.0, 0.01, 0.3])
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize(("beta1", "beta2", "eps"), [(0.9, 0.999, 1e-8), (0.5, 0.9, 1e-3), (0.0, 0.0, 1e-8)])
def test_adam_equals_torch_s(weight_decay: float, decoupled: bool, beta1: float, beta2: float, eps: float) -> None:
    ours, theirs = weights(), weights()
    adam = Adam(ours, lr=0.02, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay, decoupled=decoupled)
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    torchs = kind(theirs, lr=0.02, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, foreach=False)
    check_equal_steps(ours, adam, theirs, torchs)


@pytest.mark.parametrize("nesterov", [False, True])
def test_decoupled_weight_decay_of_sgd_by_its_formula(nesterov: bool) -> None:
    """w = w (1 - lr d);  v = m v + g;  w = w - lr (g + m v, or v): the decay does not enter the momentum."""
    lr, decay, momentum = 0.2, 0.05, 0.8
    ours = weights()
    sgd = Sgd(ours, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=decay, decoupled=True)
    expected = [w.detach().double().numpy() for w in weights()]
    velocity = [np.zeros_like(w) for w in expected]
    for step, lr_scale in enumerate(LR_SCALES):
        for i, gradient in enumerate(gradients(step)):
            ours[i].grad = gradient
            g = gradient.double().numpy()
            velocity[i] = momentum * velocity[i] + g
            direction = g + momentum * velocity[i] if nesterov else velocity[i]
            expected[i] = expected[i] * (1 - lr * lr_scale * decay) - lr * lr_scale * direction
        sgd.step(lr_scale)
    for found, wanted in zip(ours, expected, strict=True):
        np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-5, atol=1e-5)


KINDS = [SgdConfig(nesterov=True, weight_decay=0.1), AdamConfig(weight_decay=0.1, beta1=0.8)]


def built(config: SgdConfig | AdamConfig, parameters: list[torch.Tensor]) -> Sgd | Adam:
    return (Sgd if isinstance(config, SgdConfig) else Adam)(parameters, **asdict(config))


@pytest.mark.parametrize("config", KINDS)
def test_a_parameter_without_a_gradient_is_skipped_and_gradients_are_reset(config: SgdConfig | AdamConfig) -> None:
    ours = weights()
    optimizer = built(config, ours)
    ours[1].grad = torch.ones(5)
    optimizer.step(1.0)
    assert [torch.equal(w, before) for w, before in zip(ours, weights(), strict=True)] == [True, False, True]
    optimizer.zero_grad()
    assert ours[1].grad is None


@pytest.mark.parametrize("config", KINDS)
def test_the_state_is_complete(config: SgdConfig | AdamConfig) -> None:
    """An optimiser with copies of the weights and the state makes the same next steps."""

    def take(optimizer: Sgd | Adam, step: int) -> None:
        for w, gradient in zip(optimizer.parameters, gradients(step), strict=True):
            w.grad = gradient
        optimizer.step(0.5)

    first = built(config, weights())
    take(first, 0)
    second = built(config, [w.detach().clone().requires_grad_() for w in first.parameters])
    for name, tensor in second.state().items():
        tensor.copy_(first.state()[name])
    for step in (1, 2):
        take(first, step)
        take(second, step)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters, second.parameters, strict=True))


def test_combined_steps_and_resets_all_parts() -> None:
    ours = weights()
    both = Combined([Sgd(ours[:1], lr=1.0), Sgd(ours[1:], lr=2.0)])
    for w in ours:
        w.grad = torch.ones_like(w)
    both.step(0.5)
    for w, before, lr in zip(ours, weights(), (0.5, 1.0, 1.0), strict=True):
        assert torch.equal(w, before - lr)
    both.zero_grad()
    assert all(w.grad is None for w in ours)


@pytest.mark.parametrize(
    "config",
    [
        SgdConfig(lr=0.3, momentum=0.8, nesterov=True, weight_decay=0.01, decoupled=True),
        AdamConfig(lr=0.3, beta1=0.8, beta2=0.9, eps=1e-4, weight_decay=0.1, decoupled=True),
    ],
)
def test_options_come_from_the_configuration(config: SgdConfig | AdamConfig) -> None:
    optimizer = build_optimizer(nn.Linear(3, 2), config, 5)
    assert {name: getattr(optimizer, name) for name in asdict(config)} == asdict(config)
