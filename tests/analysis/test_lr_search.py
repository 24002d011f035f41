"""The search for learning rates on losses that are functions of rate and length."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcifar.analysis.lr_search import COARSE, FARTHEST, GRID, LENGTHS, POWERS, RATIOS, Curve, found, search
from fastcifar.errors import RunFailedError


def bowl(best: float, power: float = 0.0, noise: float = 0.0):
    """Losses that fall from 2.3 to 1.5 at the best rate of a length, and diverge at 30 times that."""
    generator = np.random.default_rng(0)

    def loss_at(rate: float, steps: int) -> float:
        distance = math.log10(rate / (best * (steps / LENGTHS[1]) ** power))
        last = 2.3 - 0.8 * math.exp(-(distance**2)) + noise * generator.standard_normal()
        return math.inf if distance > 1.5 else last

    return loss_at


@settings(max_examples=30, deadline=None)
@given(best=st.floats(-4, 1), first=st.floats(-4, 0.5), power=st.sampled_from([-0.5, 0.0, 0.3, 0.5]))
def test_the_best_rate_is_found_from_anywhere_and_carried_on(best: float, first: float, power: float) -> None:
    short, long = search(bowl(10**best, power), 10**first, 2.3)
    assert long.best == pytest.approx(10**best, rel=0.03)
    assert short.best == pytest.approx(10**best * (LENGTHS[0] / LENGTHS[1]) ** power, rel=0.03)
    rates = found(short, long, 6000)
    grown = min(max(power, POWERS[0]), POWERS[1])
    assert rates.power == pytest.approx(grown, abs=0.05)
    assert rates.maximum == pytest.approx(long.best * (6000 / LENGTHS[1]) ** rates.power, rel=0.01)
    assert RATIOS[0] * 0.98 <= rates.maximum / rates.minimum <= RATIOS[1] * 1.02
    # half of the fall of this bowl is reached at a distance of 0.83 decades
    assert short.useful == pytest.approx(short.best * 10**-0.83, rel=0.3)


@pytest.mark.parametrize("best", [1e-8, 1e8])
def test_a_best_rate_beyond_the_range_is_not_guessed(best: float) -> None:
    with pytest.raises(RunFailedError):
        search(lambda rate, steps: 2.0 - 0.01 * math.exp(-abs(math.log10(rate / best)) / 9), 1.0, 2.3)


def test_noise_moves_the_best_rate_by_less_than_the_grid() -> None:
    for power in (0.0, 0.5):
        _, long = search(bowl(0.02, power, noise=0.01), 0.1, 2.3)
        assert 0.02 / GRID < long.best < 0.02 * GRID


def test_no_more_trainings_than_needed() -> None:
    steps = []

    def loss_at(rate: float, length: int) -> float:
        steps.append(length)
        return bowl(0.1)(rate, length)

    search(loss_at, 0.1, 2.3)
    assert steps.count(LENGTHS[0]) <= 7
    assert steps.count(LENGTHS[1]) == 5


def test_a_training_shorter_than_the_test_keeps_its_best_rate() -> None:
    short, long = search(bowl(0.1, 0.5), 0.1, 2.3)
    assert found(short, long, 20).maximum == pytest.approx(long.best, rel=0.01)


@pytest.mark.parametrize("last", [2.3, 3.0, math.inf, math.nan])
def test_a_loss_that_falls_nowhere(last: float) -> None:
    rates: list[float] = []

    def loss_at(rate: float, steps: int) -> float:
        rates.append(rate)
        return last

    with pytest.raises(RunFailedError, match=f"{min(GRID**-FARTHEST, 1):.3g}"):
        search(loss_at, 1.0, 2.3)
    assert max(rates) == pytest.approx(GRID**COARSE)  # a neighbour of the first rate; the others are lower


def test_a_diverged_neighbour_bounds_the_parabola() -> None:
    curve = Curve(steps=30, rates=np.array([0.1, 0.178, 0.316]), losses=np.array([1.8, 1.5, math.inf]), guessing=2.3)
    assert 0.1 < curve.best < 0.178
    assert curve.useful == pytest.approx(0.1)
