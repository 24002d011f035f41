"""The formulas of activations on torch's numbers, and an activation alone in a compiled kernel, against torch's."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from fastcifar.nn.activation import ACTIVATIONS, exponential
from fastcifar.nn.conv_norm_act import FUNCTIONS, activate


@pytest.fixture(autouse=True)
def vector_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one method of `Vector` that a float32 tensor lacks."""
    monkeypatch.setattr(Tensor, "exp2_integral", lambda x: x.exp2(), raising=False)


def test_exponential() -> None:
    x = torch.linspace(-79, 79, 20001)
    expected = x.double().exp()
    assert ((exponential(x) - expected).abs() / expected).max() < 5e-6
    assert (exponential(torch.tensor([-1e30, -200.0, -80.5])) < 1e-34).all()


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_formulas_of_activations(name: str) -> None:
    x = torch.linspace(-30, 30, 60001).double().requires_grad_()
    expected = {"gelu": F.gelu, "silu": F.silu, "relu": F.relu, "identity": torch.clone}[name](x)
    (gradient,) = torch.autograd.grad(expected.sum(), x)
    function, slope = ACTIVATIONS[name]
    error = (function(x.detach().float()) - expected.detach()).abs()
    assert error.max() < 1e-6 * 30
    assert error[x.detach().abs() < 6].max() < 1e-6
    assert (slope(x.detach().float()) - gradient).abs().max() < 2e-6
    nan = torch.tensor([np.nan])
    assert function(nan).isnan().all()
    assert slope(nan).isnan().all()


@settings(max_examples=20, deadline=None)
@example(shape=[2, 24, 3, 4], activation="gelu")
@given(shape=st.lists(st.integers(0, 9), min_size=1, max_size=5), activation=st.sampled_from(list(ACTIVATIONS)))
def test_activation_alone(shape: list[int], activation: str) -> None:
    x = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    layouts = [
        x,
        *([x.mT] if x.dim() > 1 else []),
        *([x.to(memory_format=torch.channels_last)] if x.dim() == 4 else []),
    ]
    for given_x in layouts:
        found = activate(given_x, activation, kernels="winograd")
        assert found.shape == given_x.shape
        assert torch.allclose(found.double(), FUNCTIONS[activation](given_x.double()), atol=1e-5)
    learned = x.clone().requires_grad_()
    activate(learned, activation, kernels="winograd").sum().backward()
    assert learned.grad is not None
