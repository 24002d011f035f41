"""SGD against torch.optim.SGD bit for bit, decoupled weight decay against its formula."""

import numpy as np
import pytest
import torch

from fastcifar.optim.optimizer import Combined, Sgd

LR_SCALES = [0.1, 0.55, 1.0, 0.7, 0.0, 0.3]


def weights() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in ((4, 3), (5,), (2, 3, 3, 3))]


def gradients(step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    return [torch.randn(w.shape, generator=generator) for w in weights()]


@pytest.mark.parametrize("weight_decay", [0.0, 5e-4, 0.3])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True), (0.5, True)])
def test_equal_to_torch(momentum: float, nesterov: bool, weight_decay: float) -> None:
    ours, theirs = weights(), weights()
    sgd = Sgd(ours, lr=0.4, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
    torchs = torch.optim.SGD(
        theirs, lr=0.4, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, foreach=False
    )
    for step, lr_scale in enumerate(LR_SCALES):
        for mine, other, gradient in zip(ours, theirs, gradients(step), strict=True):
            mine.grad, other.grad = gradient.clone(), gradient.clone()
        torchs.param_groups[0]["lr"] = 0.4 * lr_scale
        sgd.step(lr_scale)
        torchs.step()
        for mine, other in zip(ours, theirs, strict=True):
            assert torch.equal(mine, other)


@pytest.mark.parametrize("nesterov", [False, True])
def test_decoupled_weight_decay_by_hand(nesterov: bool) -> None:
    """w = w (1 - lr d);  v = m v + g;  w = w - lr (g + m v, or v): the decay never enters the momentum."""
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
        np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_a_parameter_without_a_gradient_is_left_alone() -> None:
    ours = weights()
    sgd = Sgd(ours, lr=1.0, momentum=0.9, weight_decay=0.1)
    ours[1].grad = torch.ones(5)
    sgd.step(1.0)
    assert torch.equal(ours[0], weights()[0])
    assert not torch.equal(ours[1], weights()[1])


def test_gradients_are_not_changed_but_forgotten() -> None:
    ours = weights()
    sgd = Sgd(ours, lr=1.0, momentum=0.9, nesterov=True, weight_decay=0.1)
    for w, gradient in zip(ours, gradients(0), strict=True):
        w.grad = gradient.clone()
    sgd.step(1.0)
    assert all(torch.equal(w.grad, g) for w, g in zip(ours, gradients(0), strict=True) if w.grad is not None)
    sgd.zero_grad()
    assert [w.grad for w in ours] == [None] * 3


def test_combined_steps_and_forgets_all_parts() -> None:
    ours = weights()
    both = Combined([Sgd(ours[:1], lr=1.0), Sgd(ours[1:], lr=2.0)])
    assert [p is w for group in both.param_groups for p, w in zip(group["params"], ours, strict=False)]
    assert sum(len(group["params"]) for group in both.param_groups) == 3
    for w in ours:
        w.grad = torch.ones_like(w)
    both.step(0.5)
    for w, before, lr in zip(ours, weights(), (0.5, 1.0, 1.0), strict=True):
        assert torch.equal(w, before - lr)
    both.zero_grad()
    assert all(w.grad is None for w in ours)
