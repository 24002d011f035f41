"""Plots of learning rates, read back from their axes."""

import json
import math
from typing import Any

import numpy as np

from fastcifar.analysis.cyclic import Cycles, cyclic_rates
from fastcifar.analysis.lr_range import RangeTest
from fastcifar.analysis.lr_search import Curve
from fastcifar.analysis.plan import plan
from fastcifar.analysis.rate_plots import draw_cycles, draw_plan, draw_range_test
from fastcifar.analysis.rate_tables import as_json, from_json, table
from fastcifar.config import Config


def range_test(dataset: str = "synthetic") -> RangeTest:
    short, long = (
        Curve(steps=steps, rates=np.geomspace(0.001, 10, 5), losses=np.array(losses), guessing=2.3)
        for steps, losses in ((30, [2.2, 1.9, 1.7, 2.0, math.inf]), (60, [2.1, 1.7, 1.4, 1.9, 9.0]))
    )
    return RangeTest(short=short, long=long, total=600, seconds=1.0, dataset=dataset, recipe="smoke")


def test_range_test() -> None:
    test = range_test()
    axis: Any = draw_range_test(test).axes[0]
    assert "smoke, synthetic data" in axis.get_title()
    assert axis.get_xscale() == "log"
    marked = [line.get_xdata()[0] for line in axis.lines if len(set(line.get_xdata())) == 1]
    assert marked == [test.short.best, test.long.best, test.found.maximum]
    low, high = axis.get_ylim()
    assert low < 1.4
    assert 2.3 < high < 4  # not the 9 of a training that was disturbed
    assert f"peak at {test.found.maximum:.3g}" in axis.get_xlabel()


def test_a_range_test_as_json_and_back(tiny: Config) -> None:
    test = range_test()
    values = json.loads(json.dumps(as_json(test, tiny), allow_nan=False))
    assert (values["max"], values["min"]) == (test.found.maximum, test.found.minimum)
    again = from_json(values)
    assert as_json(again, tiny) == values
    assert again.found == test.found
    for line in table(test).splitlines()[:-2]:
        assert line.endswith("  [synthetic data, not CIFAR-10]")
    assert "[" not in table(range_test("cifar10"))


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
