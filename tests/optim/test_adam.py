"""Adam and AdamW against torch's over steps, bit for bit."""

import pytest
import torch
from torch import nn

from fastcifar.config import AdamConfig
from fastcifar.optim.optimizer import Adam, build_optimizer

LR_SCALES = [0.1, 0.55, 1.0, 0.7, 0.0, 0.3]


def weights() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in ((4, 3), (5,), (2, 3, 3, 3))]


def gradients(step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    return [torch.randn(w.shape, generator=generator) for w in weights()]


@pytest.mark.parametrize("weight_decay", [0.0, 0.01, 0.3])
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize(("beta1", "beta2", "eps"), [(0.9, 0.999, 1e-8), (0.5, 0.9, 1e-3), (0.0, 0.0, 1e-8)])
def test_equal_to_torch(weight_decay: float, decoupled: bool, beta1: float, beta2: float, eps: float) -> None:
    ours, theirs = weights(), weights()
    adam = Adam(ours, lr=0.02, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay, decoupled=decoupled)
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    torchs = kind(theirs, lr=0.02, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, foreach=False)
    for step, lr_scale in enumerate(LR_SCALES * 4):
        for mine, other, gradient in zip(ours, theirs, gradients(step), strict=True):
            mine.grad, other.grad = gradient.clone(), gradient.clone()
        torchs.param_groups[0]["lr"] = 0.02 * lr_scale
        adam.step(lr_scale)
        torchs.step()
        for mine, other in zip(ours, theirs, strict=True):
            assert torch.equal(mine, other)


def test_its_state_is_all_there_is() -> None:
    """Another one with the same weights, means and count goes on as the first does."""

    def take(adam: Adam, step: int) -> None:
        for w, gradient in zip(adam.parameters, gradients(step), strict=True):
            w.grad = gradient
        adam.step(0.5)

    first = Adam(weights(), lr=0.1)
    take(first, 0)
    second = Adam([w.detach().clone().requires_grad_() for w in first.parameters], lr=0.1)
    theirs = [*first.first, *first.second, first.count]
    for mine, other in zip([*second.first, *second.second, second.count], theirs, strict=True):
        mine.copy_(other)
    for step in (1, 2):
        take(first, step)
        take(second, step)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters, second.parameters, strict=True))


def test_a_parameter_without_a_gradient_is_left_alone() -> None:
    ours = weights()
    adam = Adam(ours, lr=1.0, weight_decay=0.1)
    ours[1].grad = torch.ones(5)
    adam.step(1.0)
    assert torch.equal(ours[0], weights()[0])
    assert not torch.equal(ours[1], weights()[1])


def test_gradients_are_not_changed_but_forgotten() -> None:
    ours = weights()
    adam = Adam(ours, lr=1.0, weight_decay=0.1)
    for w, gradient in zip(ours, gradients(0), strict=True):
        w.grad = gradient.clone()
    adam.step(1.0)
    assert all(torch.equal(w.grad, g) for w, g in zip(ours, gradients(0), strict=True) if w.grad is not None)
    adam.zero_grad()
    assert [w.grad for w in ours] == [None] * 3


def test_it_is_built_from_its_configuration() -> None:
    config = AdamConfig(lr=0.3, beta1=0.8, beta2=0.9, eps=1e-4, weight_decay=0.1, decoupled=True)
    adam = build_optimizer(nn.Linear(3, 2), config, 5)
    assert isinstance(adam, Adam)
    built = (adam.lr, adam.beta1, adam.beta2, adam.eps, adam.weight_decay, adam.decoupled)
    assert built == (0.3, 0.8, 0.9, 1e-4, 0.1, True)
    assert len(adam.first) == len(adam.second) == 2
