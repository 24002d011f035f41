"""Suggested learning rates: known answers, invariances of all rules, noise, outliers and curves without an answer."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcifar.analysis.lr_suggest import (
    METHODS,
    RunningLoss,
    Suggestion,
    clean,
    first_fall,
    outliers,
    smoothed,
    suggest,
    valley,
)
from fastcifar.errors import RunFailedError

COUNT = 121
RATES = np.geomspace(1e-5, 10, COUNT)
GRID = RATES[1] / RATES[0]  # factor between neighbours


def fall_and_rise(middle: float, limit: float, height: float = 1.0) -> np.ndarray:
    """A loss that falls from 2.3 by `height`, fastest at rate `middle`, and blows up beyond `limit`; (COUNT,)."""
    with np.errstate(over="ignore"):
        return 2.3 - height / (1 + (middle / RATES) ** 1.5) + (RATES / limit) ** 4


def found(losses: np.ndarray, rates: np.ndarray = RATES) -> dict[str, Suggestion]:
    return {str(method): pair for method, pair in suggest(clean(rates, losses, len(rates))).items()}


curves = st.builds(fall_and_rise, middle=st.floats(1e-3, 1e-2), limit=st.floats(0.3, 3.0), height=st.floats(0.5, 2.0))


def test_each_rule_on_a_curve_by_hand() -> None:
    rates = np.array([1.0, 10, 100, 1e3, 1e4, 1e5])
    losses = np.array([2.0, 2.0, 1.9, 1.2, 0.9, 1.0])
    assert METHODS["steepest"](rates, losses) == 1e3  # (0.9 - 1.9) over two decades; (1.2 - 2.0) one before
    assert METHODS["minimum"](rates, losses) == 1e3
    assert METHODS["bound"](rates, losses) == 5e3
    assert valley(rates, losses) == 100  # 2.0, 1.9, 1.2, 0.9 is the longest, from the first point to the fifth
    assert valley(np.arange(1.0, 8.0), np.array([3.0, 9.0, 2.0, 9.0, 1.0, 9.0, 9.0])) == 3.0  # gaps are skipped
    assert first_fall(rates, losses) == 1e3  # 1.9 is still above 2 - 0.1 * 1.1


@settings(max_examples=20, deadline=None)
@given(middle=st.floats(1e-3, 1e-2), limit=st.floats(0.3, 3.0))
def test_the_known_answers_of_an_analytic_curve(middle: float, limit: float) -> None:
    losses = fall_and_rise(middle, limit)
    suggestions = found(losses)
    lowest = RATES[losses.argmin()]
    assert middle / GRID**3 < suggestions["steepest"].maximum < middle * GRID**3
    assert lowest / GRID**3 < 10 * suggestions["minimum"].maximum < lowest * GRID**3
    assert RATES[0] < suggestions["valley"].maximum < lowest


@settings(max_examples=20, deadline=None)
@given(losses=curves, power=st.integers(-20, 20), shift=st.integers(-8, 8))
def test_the_unit_of_the_loss_does_not_matter(losses: np.ndarray, power: int, shift: int) -> None:
    losses = np.round(losses * 2**20) / 2**20  # so that adding an integer is exact
    expected = found(losses)
    assert expected == found(losses * 2.0**power)  # a power of two, so that nothing rounds
    for method, suggestion in found(losses + shift).items():
        assert suggestion.maximum == pytest.approx(expected[method].maximum, rel=1.01 * (GRID - 1))


@settings(max_examples=20, deadline=None)
@given(losses=curves, power=st.integers(-10, 10))
def test_suggestions_move_with_the_rates(losses: np.ndarray, power: int) -> None:
    expected = found(losses)
    for method, suggestion in found(losses, RATES * 2.0**power).items():
        assert suggestion.maximum == pytest.approx(expected[method].maximum * 2.0**power, rel=2e-3)  # four digits
        assert suggestion.minimum == pytest.approx(expected[method].minimum * 2.0**power, rel=2e-3)
        assert suggestion.maximum / 100.1 <= suggestion.minimum <= suggestion.maximum / 9.99


@settings(max_examples=20, deadline=None)
@given(losses=curves, at=st.integers(3, 90), value=st.sampled_from([50.0, -50.0, math.nan, math.inf]))
def test_a_stray_point_changes_little(losses: np.ndarray, at: int, value: float) -> None:
    expected = found(losses)
    losses = losses.copy()
    losses[at] = value
    for method, suggestion in found(losses).items():
        two_steps = 1.01 * (GRID**2 - 1)
        assert suggestion.maximum == pytest.approx(expected[method].maximum, rel=two_steps)


def test_what_follows_the_divergence_does_not_matter() -> None:
    losses = fall_and_rise(0.005, 1.0)
    end = int(losses.argmin()) + 8
    wild = losses.copy()
    wild[end:] = 1e6 * np.random.default_rng(0).random(COUNT - end)
    assert found(wild) == found(losses)


def test_noise_moves_suggestions_within_their_decade() -> None:
    losses = fall_and_rise(0.005, 1.0)
    expected = found(losses)
    for noise in np.random.default_rng(1).normal(0, 0.05, (20, COUNT)):
        for method, suggestion in found(losses + noise).items():
            assert expected[method].maximum / 6 < suggestion.maximum < expected[method].maximum * 6, method


@pytest.mark.parametrize(
    ("losses", "text"),
    [
        (np.linspace(1.0, 3.0, COUNT), "does not clearly fall between learning rates 1e-05 and 10"),
        (np.full(COUNT, 2.3), "does not clearly fall"),
        *((np.random.default_rng(seed).normal(2.3, 0.1, COUNT), "does not clearly fall") for seed in range(10)),
        (np.full(COUNT, math.nan), "0 usable points"),
        (np.where(np.arange(COUNT) < 5, 1.0, math.inf), "5 usable points"),
    ],
)
def test_curves_without_a_suggestion(losses: np.ndarray, text: str) -> None:
    with pytest.raises(RunFailedError, match=text):
        found(losses)


def test_outliers_are_single_points() -> None:
    losses = fall_and_rise(0.005, 1.0)
    assert not outliers(losses).any()
    losses[[20, 60]] += (5.0, -5.0)
    assert np.flatnonzero(outliers(losses)).tolist() == [20, 60]
    assert outliers(np.array([1.0, 2.0])).tolist() == [False, False]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=30), st.floats(0, 0.99))
def test_smoothing_stays_within_the_values(values: list[float], decay: float) -> None:
    result = smoothed(np.array(values), decay)
    assert len(result) == len(values)
    assert min(values) - 1e-9 <= result.min() <= result.max() <= max(values) + 1e-9


def test_smoothing_has_no_bias_and_no_lag() -> None:
    assert smoothed(np.full(20, 7.0), 0.9) == pytest.approx(np.full(20, 7.0))
    line = np.arange(101.0)
    assert smoothed(line, 0.8)[50] == pytest.approx(50, abs=1e-3)  # a one-sided average would say 46
    average = RunningLoss(0.9)
    assert average.add(3.0) == pytest.approx(3.0)
    assert average.add(5.0) == pytest.approx((0.9 * 3 + 5) / 1.9)


def test_every_method_suggests() -> None:
    assert list(found(fall_and_rise(0.005, 1.0))) == list(METHODS)
