"""The schedule against torch's OneCycleLR over whole runs, against tables computed by hand, and its bounds."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import OneCycleLR

from fastcifar.config import ScheduleConfig
from fastcifar.optim.schedules import one_cycle, resolution, total_steps


def ours(total: int, peak: float, config: ScheduleConfig) -> list[float]:
    return [one_cycle(step, total, peak, config) for step in range(total)]


def theirs(total: int, peak: float, config: ScheduleConfig) -> list[float]:
    assert config.anneal != "step"  # which torch lacks
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
    config = ScheduleConfig(start=start, end=end, anneal=anneal)  # type: ignore[arg-type]
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
    config = ScheduleConfig(start=start, end=end, anneal=anneal)  # type: ignore[arg-type]
    assert ours(total, peak, config) == pytest.approx(theirs(total, peak, config), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("peak", "start", "end", "anneal", "expected"),
    [
        (0.5, 0.1, 0.1, "linear", [0.1, 0.325, 0.55, 0.775, 1.0, 0.82, 0.64, 0.46, 0.28, 0.1]),
        (0.5, 0.2, 0.0, "linear", [0.2, 0.4, 0.6, 0.8, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0]),
        (0.0, 1.0, 0.1, "linear", [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        (0.1, 0.3, 0.1, "linear", [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        (1.0, 0.1, 0.0, "linear", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
        (0.9, 1.0, 0.1, "step", [1.0] * 9 + [0.1]),
        (0.5, 0.4, 0.2, "step", [0.4] * 5 + [0.2] * 5),
        (0.0, 1.0, 0.1, "step", [0.1] * 10),
        (0.5, 0.0, 0.0, "cos", [0, 0.14644661, 0.5, 0.85355339, 1, 0.90450850, 0.65450850, 0.34549150, 0.09549150, 0]),
    ],
)
def test_ten_steps_by_hand(peak: float, start: float, end: float, anneal: str, expected: list[float]) -> None:
    config = ScheduleConfig(start=start, end=end, anneal=anneal)  # type: ignore[arg-type]
    assert ours(10, peak, config) == pytest.approx(expected, abs=1e-8)


@given(total=st.integers(1, 3000), peak=st.floats(0, 1), start=st.floats(0, 1), end=st.floats(0, 1))
def test_never_above_the_peak_nor_below_both_ends(total: int, peak: float, start: float, end: float) -> None:
    config = ScheduleConfig(start=start, end=end)
    for step in {0, total // 3, total // 2, total - 1}:
        assert min(start, end) - 1e-9 <= one_cycle(step, total, peak, config) <= 1 + 1e-9


@pytest.mark.parametrize("peak", [0.0, 0.5, 1.0])
def test_a_run_of_one_step_is_at_its_peak(peak: float) -> None:
    assert one_cycle(0, 1, peak, ScheduleConfig(start=0.1, end=0.1)) == 1.0


@pytest.mark.parametrize(
    ("epochs", "per_epoch", "steps"), [(24, 97, 2328), (0.5, 97, 48), (1.51, 100, 151), (1e-9, 97, 1), (2.0, 1, 2)]
)
def test_total_steps(epochs: float, per_epoch: int, steps: int) -> None:
    assert total_steps(epochs, per_epoch) == steps


def test_resolution_changes_at_the_ends_of_its_stages() -> None:
    stages = ((0.4, 16), (0.6, 20), (1.0, 32))
    assert [resolution(step, 10, stages) for step in range(10)] == [16, 16, 16, 16, 20, 20, 32, 32, 32, 32]
    assert [resolution(step, 3, stages) for step in range(3)] == [16, 16, 32]
    assert resolution(0, 1, stages) == 16
    assert {resolution(step, 50, ((1.0, 24),)) for step in range(50)} == {24}
