"""The formulas of activations on numbers, and an activation alone in compiled code, against torch's."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from fastcifar.nn.activation import ACTIVATIONS, exponential
from fastcifar.nn.conv_norm_act import FUNCTIONS, activate


class Numbers:
    """float32 arrays with what the formulas of activations ask for."""

    def __init__(self, value: Any) -> None:
        self.value = np.asarray(value, np.float32)

    def _with(self, operator: Callable[..., Any], left: Any, right: Any) -> "Numbers":
        values = [x.value if isinstance(x, Numbers) else np.float32(x) for x in (left, right)]
        return Numbers(operator(*values))

    def __add__(self, other: Any) -> "Numbers":
        return self._with(np.add, self, other)

    def __sub__(self, other: Any) -> "Numbers":
        return self._with(np.subtract, self, other)

    def __mul__(self, other: Any) -> "Numbers":
        return self._with(np.multiply, self, other)

    def __radd__(self, other: float) -> "Numbers":
        return self._with(np.add, other, self)

    def __rsub__(self, other: float) -> "Numbers":
        return self._with(np.subtract, other, self)

    def __rmul__(self, other: float) -> "Numbers":
        return self._with(np.multiply, other, self)

    def __rtruediv__(self, other: float) -> "Numbers":
        return self._with(np.divide, other, self)

    def above(self, other: Any) -> np.ndarray:
        return self.value > (other.value if isinstance(other, Numbers) else np.float32(other))

    def where(self, bits: np.ndarray, other: Any) -> "Numbers":
        return Numbers(np.where(bits, self.value, other.value if isinstance(other, Numbers) else np.float32(other)))

    def power_of_two(self) -> "Numbers":
        return Numbers(((self.value.astype(np.int32) + 127) << 23).view(np.float32))


def test_the_exponential() -> None:
    x = np.linspace(-79, 79, 20001, dtype=np.float32)
    expected = np.exp(x.astype(np.float64))
    assert (abs(exponential(Numbers(x)).value - expected) / expected).max() < 5e-6
    assert (exponential(Numbers([-1e30, -200.0, -80.5])).value < 1e-34).all()


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_formulas_of_activations(name: str) -> None:
    x = torch.linspace(-30, 30, 60001).double().requires_grad_()
    expected = {"gelu": F.gelu, "silu": F.silu, "relu": F.relu}[name](x)
    expected.sum().backward()
    assert x.grad is not None
    function, slope = ACTIVATIONS[name]
    numbers = Numbers(x.detach().float().numpy())
    assert abs(function(numbers).value - expected.detach().numpy()).max() < 1e-6 * 30
    near = abs(x.detach().numpy()) < 6
    assert abs(function(numbers).value - expected.detach().numpy())[near].max() < 1e-6
    assert abs(slope(numbers).value - x.grad.numpy()).max() < 2e-6
    assert np.isnan(function(Numbers([np.nan])).value).all()
    assert np.isnan(slope(Numbers([np.nan])).value).all()


@settings(max_examples=30, deadline=None)
@example(shape=[2, 24, 3, 4], activation="gelu")
@given(shape=st.lists(st.integers(0, 9), min_size=1, max_size=5), activation=st.sampled_from(list(ACTIVATIONS)))
def test_an_activation_alone(shape: list[int], activation: str) -> None:
    x = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for given_x in (
        x,
        x.mT if x.dim() > 1 else x,
        *([x.to(memory_format=torch.channels_last)] if x.dim() == 4 else []),
    ):
        expected = FUNCTIONS[activation](given_x.double())
        for kernels in ("torch", "winograd", "winograd-fp16"):
            found = activate(given_x, activation, kernels=kernels)  # type: ignore[arg-type]
            assert found.shape == given_x.shape
            assert torch.allclose(found.double(), expected, atol=1e-5)
    learned = x.clone().requires_grad_()
    activate(learned, activation, kernels="winograd").sum().backward()
    assert learned.grad is not None
