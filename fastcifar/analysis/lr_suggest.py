"""From the losses of a range test to learning rates: pure functions on arrays, each rule with its source.

A curve is `rates` (n,), ascending and positive, and `losses` (n,), both float64. No rule depends on the unit of the
loss: multiplying all losses by a positive number, or adding one, changes no suggestion.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fastcifar.errors import RunFailedError

Method = Literal["bound", "steepest", "valley", "minimum"]
DEFAULT_METHOD: Method = "bound"
"""The peak that a cycle bears; the other three suggest rates to be held, which a cycle trains too slowly with."""
FEWEST_POINTS = 8
SMOOTHING = 0.04
"""Reach of the smoothing, as a fraction of the test: so it covers the same range of rates however many steps it has."""
WINDOW, OUTLIER_DEVIATIONS = 7, 5.0
NOISE = 2.0
"""Standard deviations of the scatter about the average; pure noise falls by less."""
CLEAR_FALL = 0.1
"""Share of the whole fall that counts as a beginning; less is within the noise of a hundred steps."""
RATIOS = (10.0, 100.0)
"""How many times the smallest rate the largest is, at least and at most. A tenth is advised for one cycle (arXiv
1803.09820, section 4.1); below a hundredth a cycle spends its ends without learning."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A range test without what cannot be used, and smoothed."""

    rates: np.ndarray
    """Rates of the points that were kept, ascending, float64 (m,)."""
    losses: np.ndarray
    """Their losses as measured, float64 (m,)."""
    smooth: np.ndarray
    """Their losses smoothed, float64 (m,)."""
    lowest: int
    """Where the loss ends to fall: the position of the smallest running median."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Learning rates for a one-cycle schedule: its peak and both its ends."""

    maximum: float
    minimum: float


class RunningLoss:
    """An exponential moving average without the bias towards its start (arXiv 1412.6980, section 3)."""

    def __init__(self, decay: float) -> None:
        self.decay, self.sum, self.weight = decay, 0.0, 0.0

    def add(self, value: float) -> float:
        """The average after `value`."""
        self.sum = self.decay * self.sum + (1 - self.decay) * value
        self.weight = self.decay * self.weight + (1 - self.decay)
        return self.sum / self.weight


def decay_of(count: int) -> float:
    """The moving average's decay for a test of `count` steps: it looks back over SMOOTHING * count of them."""
    return 1 - 1 / max(1.0, SMOOTHING * count)


def smoothed(losses: np.ndarray, decay: float) -> np.ndarray:
    """Averaged forwards, then backwards, so that the curve does not lag behind the rate that made it; (n,)."""
    for _ in range(2):
        average = RunningLoss(decay)
        losses = np.array([average.add(loss) for loss in losses])[::-1]
    return losses


def running_median(losses: np.ndarray) -> np.ndarray:
    """Median of each loss and its WINDOW - 1 neighbours, of fewer at the ends: keeps edges, forgets single points."""
    half = WINDOW // 2
    return np.array([np.median(losses[max(0, i - half) : i + half + 1]) for i in range(len(losses))])


def outliers(losses: np.ndarray) -> np.ndarray:
    """Which losses stand alone, bool (n,): far from the median of their neighbours, by those neighbours' own spread.

    Hampel's rule: 1.4826 times the median distance to the median estimates a standard deviation (F. Hampel, "The
    influence curve and its role in robust estimation", 1974).
    """
    half = WINDOW // 2
    distance = np.abs(losses - running_median(losses))
    apart = np.zeros(len(losses), dtype=bool)
    for i in range(half, len(losses) - half):  # at the ends nothing tells a single point from a rise
        near = losses[i - half : i + half + 1]
        apart[i] = distance[i] > OUTLIER_DEVIATIONS * 1.4826 * np.median(np.abs(near - np.median(near)))
    return apart


def clean(rates: np.ndarray, losses: np.ndarray, planned: int) -> Curve:
    """The curve of a test of `planned` steps without non-finite losses and outliers; both inputs (n,), n <= planned."""
    finite = np.isfinite(losses)
    rates, losses = rates[finite], losses[finite]
    kept = ~outliers(losses)
    rates, losses = rates[kept], losses[kept]
    if not len(losses):
        return Curve(rates, losses, losses, 0)
    lowest = int(np.argmin(running_median(losses)))
    decay = decay_of(planned)
    # apart, or a sudden divergence would reach back over the minimum and hide it
    smooth = np.concatenate((smoothed(losses[: lowest + 1], decay), smoothed(losses[lowest + 1 :], decay)))
    return Curve(rates, losses, smooth, lowest)


def falling(curve: Curve) -> slice:
    """The part of a curve that any suggestion comes from: its start to its lowest point.

    Raises RunFailedError where the loss does not fall, or by less than its scatter could feign, and where it
    diverged at once.
    """
    if len(curve.rates) < FEWEST_POINTS:
        raise RunFailedError(
            f"the range test has {len(curve.rates)} usable points, but needs {FEWEST_POINTS}; "
            "lower its first learning rate, or give it more iterations"
        )
    lowest = curve.lowest
    fall = curve.smooth[0] - curve.smooth[lowest]
    scatter = np.std((curve.losses - curve.smooth)[: lowest + 1])
    if lowest == 0 or fall <= NOISE * scatter:
        raise RunFailedError(
            f"the loss does not clearly fall between learning rates {curve.rates[0]:.3g} and {curve.rates[-1]:.3g}, "
            "so none can be suggested; widen the range, or give the test more iterations"
        )
    return slice(lowest + 1)


def steepest(rates: np.ndarray, losses: np.ndarray) -> float:
    """The rate at which the loss falls fastest, per factor in the rate.

    As fastai's `steep`, and Lightning's suggestion, whose slope however is per unit of the rate.
    """
    return float(rates[np.argmin(np.gradient(losses, np.log(rates)))])


def valley(rates: np.ndarray, losses: np.ndarray) -> float:
    """The middle of the longest valley: of the longest sequence of ever smaller losses, gaps allowed.

    As fastai's `valley`, its default, except that gaps count towards the length. Moves with the first rate of a test.
    """
    length, before = np.ones(len(losses), dtype=int), np.arange(len(losses))
    for i in range(1, len(losses)):
        above = np.flatnonzero(losses[:i] > losses[i])
        if len(above):
            before[i] = above[np.argmax(length[above])]
            length[i] = length[before[i]] + 1
    last = first = int(np.argmax(length))
    while before[first] != first:
        first = before[first]
    return float(rates[(first + last) // 2])


def tenth_of_minimum(rates: np.ndarray, losses: np.ndarray) -> float:
    """A tenth of the rate of the smallest loss, which itself is close to divergence.

    As fastai's `minimum`; the rule is older than the code (S. Gugger, "How do you find a good learning rate", 2018).
    """
    return float(rates[np.argmin(losses)]) / 10


def bound(rates: np.ndarray, losses: np.ndarray) -> float:
    """Half the rate at which the loss stops to fall.

    That rate itself is the upper bound of a cycle in arXiv 1506.01186, section 3.3; half of it keeps clear of the
    divergence behind it, which a test places no better than that.
    """
    return float(rates[np.argmin(losses)]) / 2


METHODS: dict[Method, Callable[[np.ndarray, np.ndarray], float]] = {
    "bound": bound,
    "steepest": steepest,
    "valley": valley,
    "minimum": tenth_of_minimum,
}
"""What each method suggests as the largest rate, from the falling part of a smoothed curve."""


def first_fall(rates: np.ndarray, losses: np.ndarray) -> float:
    """The first rate from which on the loss stays below CLEAR_FALL of its whole fall.

    Where it starts to get better is the lower bound of arXiv 1506.01186, section 3.3.
    """
    threshold = losses.max() - CLEAR_FALL * (losses.max() - losses.min())
    return float(rates[min(np.flatnonzero(losses > threshold)[-1] + 1, len(rates) - 1)])


def suggest(curve: Curve) -> dict[Method, Suggestion]:
    """Largest and smallest rate by each method, to four digits.

    The smallest is that at which the loss begins to fall, kept within RATIOS of the largest. Raises
    RunFailedError where the loss does not fall.
    """
    part = falling(curve)
    rates, losses = curve.rates[part], curve.smooth[part]
    begin = first_fall(rates, losses)
    found: dict[Method, Suggestion] = {}
    for method, rule in METHODS.items():
        maximum = float(f"{rule(rates, losses):.4g}")
        minimum = min(max(begin, maximum / RATIOS[1]), maximum / RATIOS[0])
        found[method] = Suggestion(maximum, float(f"{minimum:.4g}"))
    return found
