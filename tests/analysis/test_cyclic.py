"""The triangular cycles against torch's CyclicLR at every step, by hand, and their bounds."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CyclicLR

from fastcifar.analysis.cyclic import Cycles, cyclic, cyclic_rates
from fastcifar.errors import UserError


def theirs(config: Cycles) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = CyclicLR(
        optimizer,
        base_lr=config.base,
        max_lr=config.peak,
        step_size_up=config.step_size,
        mode=config.kind,
        gamma=config.gamma,
        cycle_momentum=False,
    )
    rates = []
    for _ in range(config.total + 1):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("kind", ["triangular", "triangular2", "exp_range"])
@pytest.mark.parametrize("step_size", [1, 2, 7, 98])
def test_equal_to_torch_at_every_step(kind: Any, step_size: int) -> None:
    config = Cycles(kind=kind, base=0.001, peak=0.006, step_size=step_size, cycles=4, gamma=0.99)
    assert cyclic_rates(config).tolist() == pytest.approx(theirs(config), rel=1e-9)


def test_by_hand() -> None:
    def rates(**values: Any) -> list[float]:
        return cyclic_rates(Cycles(base=1, peak=5, step_size=2, cycles=2, **values)).tolist()

    assert rates() == [1, 3, 5, 3, 1, 3, 5, 3, 1]
    assert rates(kind="triangular2") == [1, 3, 5, 3, 1, 2, 3, 2, 1]
    assert rates(kind="exp_range", gamma=0.5) == [1, 2, 2, 1.25, 1, 1 + 2 / 32, 1 + 4 / 64, 1 + 2 / 128, 1]


@settings(max_examples=50, deadline=None)
@given(
    kind=st.sampled_from(["triangular", "triangular2", "exp_range"]),
    base=st.floats(0, 1),
    amplitude=st.floats(1e-6, 10),
    step_size=st.integers(1, 50),
    gamma=st.floats(0.5, 1),
    step=st.integers(0, 1000),
)
def test_stays_between_base_and_peak(
    kind: Any, base: float, amplitude: float, step_size: int, gamma: float, step: int
) -> None:
    config = Cycles(kind=kind, base=base, peak=base + amplitude, step_size=step_size, gamma=gamma)
    assert config.base <= cyclic(step, config) <= config.peak * (1 + 1e-12)
    assert cyclic(2 * step_size * (step % 9), config) == pytest.approx(base)  # every cycle starts and ends at the base


@pytest.mark.parametrize(
    ("name", "value"),
    [("base", -1.0), ("peak", 0.001), ("peak", math.nan), ("step_size", 0), ("cycles", 0), ("gamma", 1.5)],
)
def test_a_value_out_of_range_is_refused(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"{name} is {value}\b"):
        Cycles(**{name: value})


def test_too_many_steps_are_refused() -> None:
    with pytest.raises(UserError, match=r"\b4000000000000\b"):
        Cycles(cycles=10**9)
