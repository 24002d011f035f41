"""Searches the learning rates of a schedule from the losses of short trainings: pure functions.

A training of n steps is long enough to show which rates are far too low or too high, and too short to show the best one
of the whole training: with plain SGD, a longer warm-up reaches higher rates before the loss rises, because the network
moves to where the loss is less curved (arXiv 2103.00065). The best rates of two lengths say how fast the best rate
grows with the length, as a power of it.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from fastcifar.errors import RunFailedError

GRID = 10**0.25
"""Ratio of neighbouring rates next to the best one; a parabola through three of them finds the best between them."""
COARSE = 2
"""Steps of the grid between neighbours farther away."""
LENGTHS = (25, 75)
"""Steps of the short trainings; the rates of the longer ones begin at the best of the shorter ones."""
POWERS = (0.0, 0.6)
"""Least and greatest growth of the best rate with the length. It is about 0.5 with the reference ResNet. With the speed
network it is less than 0, but its best rate hardly falls in longer trainings (bench/NOTES.md)."""
HALF = 0.5
"""Fraction of the best rate's fall of the loss at which a rate begins to be useful."""
RATIOS = (3.0, 100.0)
"""Least and greatest maximum / minimum; above 100, the network learns nothing at the ends of the cycle."""
FARTHEST = 24
"""The most steps on the grid away from the first rate, a factor of a million."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Losses of short trainings at several rates, with the same first weights and images."""

    steps: int
    """Length of each training."""
    rates: np.ndarray
    """Peak learning rates, ascending, float64 (n,)."""
    losses: np.ndarray
    """Mean training loss of the last quarter of each training, float64 (n,); infinite if it diverged."""
    guessing: float
    """Loss of a network that has learned nothing."""

    @property
    def best(self) -> float:
        """The rate with the lowest loss, between those measured."""
        at = int(np.argmin(self.losses))
        left, middle, right = (_bounded(self, i) for i in (at - 1, at, at + 1))
        bend = left - 2 * middle + right
        shift = (left - right) / (2 * bend) if bend > 0 else 0.0
        return float(self.rates[at] * GRID**shift)

    @property
    def useful(self) -> float:
        """The lowest rate with HALF of the fall of the best one, between those measured."""
        wanted = self.guessing - HALF * (self.guessing - self.losses.min())
        at = int(np.argmax(self.losses <= wanted))
        if at == 0:
            return float(self.rates[0])
        above, below = _bounded(self, at - 1), self.losses[at]
        part = (wanted - below) / max(above - below, 1e-12)
        return float(self.rates[at] * (self.rates[at - 1] / self.rates[at]) ** part)


def _bounded(curve: Curve, at: int) -> float:
    """A loss, or what stands for it beyond the ends and where it is worse: the loss of guessing."""
    return min(float(curve.losses[at]), curve.guessing) if 0 <= at < len(curve.losses) else curve.guessing


@dataclass(frozen=True, slots=True)
class Found:
    """Learning rates of a one-cycle schedule: its peak, and its start and end."""

    maximum: float
    minimum: float
    power: float
    """Growth of the best rate with the length."""


def search(loss_at: Callable[[float, int], float], first_rate: float, guessing: float) -> tuple[Curve, Curve]:
    """The curves of both LENGTHS. `loss_at(rate, steps)` trains and returns the loss at the end.

    It starts at a rate of the grid near `first_rate` and goes on until it has passed the best rate on both sides,
    and with the shorter length also the useful ones. Raises RunFailedError if no loss falls below `guessing`,
    or if the best rate is farther than FARTHEST.
    """
    start = COARSE * round(math.log(first_rate, GRID**COARSE))
    short = _passed(loss_at, LENGTHS[0], start, guessing, until_useless=True)
    return short, _passed(loss_at, LENGTHS[1], round(math.log(short.best, GRID)), guessing, until_useless=False)


def _passed(
    loss_at: Callable[[float, int], float], steps: int, start: int, guessing: float, *, until_useless: bool
) -> Curve:
    points: dict[int, float] = {}

    def measured(places: Iterable[int]) -> Curve:
        for place in places:
            loss = loss_at(GRID**place, steps)
            points[place] = loss if math.isfinite(loss) else math.inf
        rates = GRID ** np.array(sorted(points), float)
        return Curve(
            steps=steps, rates=rates, losses=np.array([points[at] for at in sorted(points)]), guessing=guessing
        )

    waiting = [start - COARSE, start, start + COARSE]
    while waiting:
        curve = measured(waiting)
        at, low = int(np.argmin(curve.losses)), float(curve.losses.min())
        useless = curve.losses[0] > guessing - HALF * (guessing - low)
        waiting = []
        if at == 0 or low >= guessing or (until_useless and not useless):  # where no loss falls, rates are too high
            waiting.append(min(points) - COARSE)
        if at == len(points) - 1 and low < guessing:
            waiting.append(max(points) + COARSE)
        waiting = [place for place in waiting if abs(place - start) <= FARTHEST]
    best = min(points, key=lambda place: points[place])
    curve = measured([best - 1, best + 1])
    if curve.losses.min() >= guessing:
        raise RunFailedError(
            f"in {steps} steps, no learning rate from {curve.rates[0]:.3g} to {curve.rates[-1]:.3g} "
            f"brings the loss below that of guessing, {guessing:.3g}"
        )
    if min(points, key=lambda place: points[place]) in (min(points), max(points)):
        raise RunFailedError(
            f"the loss still falls at a learning rate of {GRID ** min(points, key=lambda place: points[place]):.3g}, "
            f"far from where the search began, {GRID**start:.3g}; set optimizer.lr nearer to it"
        )
    return curve


def found(short: Curve, long: Curve, total: int) -> Found:
    """The rates for a training of `total` steps, to three digits."""
    power = math.log(long.best / short.best) / math.log(long.steps / short.steps)
    power = min(max(power, POWERS[0]), POWERS[1])
    maximum = long.best * max(1.0, total / long.steps) ** power
    ratio = min(max(short.best / short.useful, RATIOS[0]), RATIOS[1])
    return Found(float(f"{maximum:.3g}"), float(f"{maximum / ratio:.3g}"), power)
