"""Plots of learning rates, read back from their axes."""

import math
from typing import Any

import numpy as np
import pytest

from fastcifar.analysis.cyclic import Cycles, cyclic_rates
from fastcifar.analysis.lr_range import RangeTest
from fastcifar.analysis.plan import plan
from fastcifar.analysis.rate_plots import draw_cycles, draw_plan, draw_range_test
from fastcifar.config import Config


def range_test(losses: np.ndarray | None = None) -> RangeTest:
    rates = np.geomspace(1e-5, 10, 100)
    losses = 2.3 - 1 / (1 + (0.005 / rates) ** 1.5) + rates**4 if losses is None else losses
    facts: dict[str, Any] = {"iterations": 100, "diverged": False, "seconds": 1.0}
    return RangeTest(
        kind="exponential", rates=rates[: len(losses)], losses=losses, dataset="synthetic", recipe="smoke", **facts
    )


def test_range_test_with_suggestions() -> None:
    test = range_test()
    suggestions = test.suggest()
    axis: Any = draw_range_test(test, suggestions, "steepest").axes[0]
    assert "smoke, synthetic data" in axis.get_title()
    assert axis.get_xscale() == "log"
    marked = {line.get_label().split(":")[0]: line.get_xdata()[0] for line in axis.lines[2:]}
    assert marked == {method: found.maximum for method, found in suggestions.items()}
    low, high = axis.get_ylim()
    assert low < 1.3
    assert 2.3 < high < 4  # not the 10,000 of its last point


@pytest.mark.parametrize("losses", [np.full(12, 2.3), np.full(5, math.nan), np.array([2.3, math.inf])])
def test_range_test_without_suggestions(losses: np.ndarray) -> None:
    draw_range_test(range_test(losses), {}).draw_without_rendering()


def test_plan(tiny: Config) -> None:
    drawn = plan(tiny, 12)
    axes: list[Any] = draw_plan(drawn).axes
    rate, *_, momentum = axes[:4]
    assert [axis.get_ylabel() for axis in axes[:4]] == ["lr, filters", "lr, biases", "lr, head", "momentum"]
    assert [line.get_label() for line in momentum.lines] == ["filters", "biases, head"]
    for axis, rates in zip(axes, drawn.rates.values(), strict=False):
        assert axis.lines[0].get_ydata().tolist() == rates.tolist()
    assert [text.get_text() for text in rate.texts] == ["start, peak 0.24", "end 0"]


def test_cycles() -> None:
    cycles = Cycles(base=0.1, peak=0.5, step_size=10, cycles=2)
    axis: Any = draw_cycles(cycles).axes[0]
    assert axis.get_title() == "triangular, 2 cycles"
    assert axis.lines[0].get_ydata().tolist() == cyclic_rates(cycles).tolist()
    words = [text.get_text() for text in axis.texts if text.get_text()]
    assert words == ["base 0.1", "peak 0.5", "step size 10", "amplitude 0.4"]
