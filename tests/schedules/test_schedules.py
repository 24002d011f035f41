"""The schedule against torch's OneCycleLR over whole runs, against tables computed by hand, and its bounds."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import OneCycleLR

from fastcifar.errors import UserError
from fastcifar.schedules.one_cycle import OneCycle
from fastcifar.schedules.step_decay import StepDecay


def ours(total: int, peak: float, config: OneCycle) -> list[float]:
    return [scale(config, step, total, peak) for step in range(total)]


def scale(config: OneCycle, step: int, total: int, peak: float) -> float:
    """With the peak at this fraction of the run."""
    return replace(config, peak_epoch=peak).lr_scale(step, total, 1.0)


def theirs(total: int, peak: float, config: OneCycle) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = OneCycleLR(
        optimizer,
        max_lr=1.0,
        total_steps=total,
        pct_start=peak,
        anneal_strategy=config.anneal,
        cycle_momentum=False,
        div_factor=1 / config.start,
        final_div_factor=config.start / config.end,
    )
    rates = []
    for step in range(total):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        if step < total - 1:
            schedule.step()
    return rates


@pytest.mark.parametrize("anneal", ["linear", "cos"])
@pytest.mark.parametrize(
    ("total", "peak", "start", "end"),
    [
        (24 * 97, 5 / 24, 0.1, 0.1),  # 24 epochs of 97 steps, the peak at epoch 5, no annihilation
        (24 * 97, 5 / 24, 0.01, 0.01),
        (600, 0.3, 0.04, 1e-4),
        (391, 0.0705, 1 / 8, 1 / 8),
        (50, 1.0, 0.2, 0.5),
        (10, 0.5, 1.0, 1.0),
        (7, 1 / 3, 0.5, 0.9),
    ],
)
def test_equal_to_torch(anneal: str, total: int, peak: float, start: float, end: float) -> None:
    config = OneCycle(start=start, end=end, anneal=anneal)  # type: ignore[arg-type]
    assert ours(total, peak, config) == pytest.approx(theirs(total, peak, config), rel=1e-9, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    total=st.integers(2, 300),
    peak=st.floats(0, 1),
    start=st.floats(0.001, 1),
    end=st.floats(0.001, 1),
    anneal=st.sampled_from(["linear", "cos"]),
)
def test_equal_to_torch_wherever_the_peak_is_on_a_step(
    total: int, peak: float, start: float, end: float, anneal: str
) -> None:
    peak = max(peak, 1.5 / total)  # torch's first phase needs a step; ours would start at the peak
    config = OneCycle(start=start, end=end, anneal=anneal)  # type: ignore[arg-type]
    assert ours(total, peak, config) == pytest.approx(theirs(total, peak, config), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("peak", "start", "end", "anneal", "expected"),
    [
        (0.5, 0.1, 0.1, "linear", [0.1, 0.325, 0.55, 0.775, 1.0, 0.82, 0.64, 0.46, 0.28, 0.1]),
        (0.5, 0.2, 0.0, "linear", [0.2, 0.4, 0.6, 0.8, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0]),
        (0.0, 1.0, 0.1, "linear", [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        (0.1, 0.3, 0.1, "linear", [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        (1.0, 0.1, 0.0, "linear", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
        (0.5, 0.0, 0.0, "cos", [0, 0.14644661, 0.5, 0.85355339, 1, 0.90450850, 0.65450850, 0.34549150, 0.09549150, 0]),
    ],
)
def test_ten_steps_by_hand(peak: float, start: float, end: float, anneal: str, expected: list[float]) -> None:
    config = OneCycle(start=start, end=end, anneal=anneal)  # type: ignore[arg-type]
    assert ours(10, peak, config) == pytest.approx(expected, abs=1e-8)


@given(total=st.integers(1, 3000), peak=st.floats(0, 1), start=st.floats(0, 1), end=st.floats(0, 1))
def test_never_above_the_peak_nor_below_both_ends(total: int, peak: float, start: float, end: float) -> None:
    config = OneCycle(start=start, end=end)
    for step in {0, total // 3, total // 2, total - 1}:
        assert min(start, end) - 1e-9 <= scale(config, step, total, peak) <= 1 + 1e-9


@pytest.mark.parametrize("peak", [0.0, 0.5, 1.0])
def test_a_run_of_one_step_is_at_its_peak(peak: float) -> None:
    assert scale(OneCycle(start=0.1, end=0.1), 0, 1, peak) == 1.0


@pytest.mark.parametrize(
    ("drop", "factor", "expected"),
    [(9, 0.1, [1.0] * 9 + [0.1]), (5, 0.5, [1.0] * 5 + [0.5] * 5), (0, 0.1, [0.1] * 10), (10, 0.1, [1.0] * 10)],
)
def test_a_drop(drop: float, factor: float, expected: list[float]) -> None:
    config = StepDecay(drop_epoch=drop, factor=factor)
    assert [config.lr_scale(step, 10, 10) for step in range(10)] == expected


@pytest.mark.parametrize("config", [OneCycle(peak_epoch=3), StepDecay(drop_epoch=3)])
def test_a_schedule_that_does_not_fit_the_run(config: OneCycle | StepDecay) -> None:
    config.check(3)
    with pytest.raises(UserError, match=r"schedule\.\w+_epoch is 3\b.*\b2.5\b"):
        config.check(2.5)


def test_other_ends() -> None:
    assert OneCycle(peak_epoch=2, anneal="cos").with_ends(0.3) == OneCycle(
        peak_epoch=2, start=0.3, end=0.3, anneal="cos"
    )
    assert StepDecay(factor=0.2).with_ends(0.3) == StepDecay(factor=0.2)
