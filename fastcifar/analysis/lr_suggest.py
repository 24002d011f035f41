"""Suggests learning rates from the losses of a range test: pure functions on arrays, each rule with its source.

A curve is `rates` (n,), ascending and positive, and `losses` (n,), both float64. Every rule is invariant to scaling
all losses by a positive number and to adding a constant.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fastcifar.errors import RunFailedError

Method = Literal["bound", "steepest", "valley", "minimum"]
DEFAULT_METHOD: Method = "bound"
"""Suggests the peak of a cycle; the other three suggest constant rates, which are too low for a peak."""
FEWEST_POINTS = 8
SMOOTHING = 0.04
"""Span of the moving average as a fraction of the steps, so that it covers the same range of rates in any test."""
WINDOW, OUTLIER_DEVIATIONS = 7, 5.0
NOISE = 2.0
"""A fall counts if it exceeds this many standard deviations of the losses about their average."""
CLEAR_FALL = 0.1
"""Fraction of the whole fall at which the loss has started to fall; less is noise in a test of 100 steps."""
RATIOS = (10.0, 100.0)
"""Least and greatest maximum / minimum. arXiv 1803.09820, section 4.1, recommends 10 for one cycle; above 100, the
network learns nothing at the ends of the cycle."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The m usable points of a range test."""

    rates: np.ndarray
    """Learning rates, ascending, float64 (m,)."""
    losses: np.ndarray
    """Losses as measured, float64 (m,)."""
    smooth: np.ndarray
    """Losses smoothed, float64 (m,)."""
    lowest: int
    """Index of the smallest running median."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Learning rates of a one-cycle schedule: its peak, and its start and end."""

    maximum: float
    minimum: float


class RunningLoss:
    """Exponential moving average with bias correction, as in Adam (arXiv 1412.6980, section 3)."""

    def __init__(self, decay: float) -> None:
        self.decay, self.sum, self.weight = decay, 0.0, 0.0

    def add(self, value: float) -> float:
        """Adds `value` and returns the average."""
        self.sum = self.decay * self.sum + (1 - self.decay) * value
        self.weight = self.decay * self.weight + (1 - self.decay)
        return self.sum / self.weight


def decay_of(count: int) -> float:
    """Decay of the moving average for a test of `count` steps: it spans SMOOTHING * count of them."""
    return 1 - 1 / max(1.0, SMOOTHING * count)


def smoothed(losses: np.ndarray, decay: float) -> np.ndarray:
    """Averages forwards, then backwards, so that the curve does not lag behind the learning rate; (n,)."""
    for _ in range(2):
        average = RunningLoss(decay)
        losses = np.array([average.add(loss) for loss in losses])[::-1]
    return losses


def running_median(losses: np.ndarray) -> np.ndarray:
    """Median over WINDOW neighbouring losses, fewer at the ends; keeps edges and drops single outliers."""
    half = WINDOW // 2
    return np.array([np.median(losses[max(0, i - half) : i + half + 1]) for i in range(len(losses))])


def outliers(losses: np.ndarray) -> np.ndarray:
    """Bool (n,): losses more than OUTLIER_DEVIATIONS standard deviations from the median of their neighbours.

    Hampel's rule: the standard deviation is estimated as 1.4826 times the median absolute deviation (F. Hampel, "The
    influence curve and its role in robust estimation", 1974).
    """
    half = WINDOW // 2
    distance = np.abs(losses - running_median(losses))
    found = np.zeros(len(losses), dtype=bool)
    for i in range(half, len(losses) - half):  # at the ends an outlier looks like a trend
        near = losses[i - half : i + half + 1]
        found[i] = distance[i] > OUTLIER_DEVIATIONS * 1.4826 * np.median(np.abs(near - np.median(near)))
    return found


def clean(rates: np.ndarray, losses: np.ndarray, planned: int) -> Curve:
    """The curve of a test of `planned` steps, without non-finite losses and outliers; inputs (n,), n <= planned."""
    finite = np.isfinite(losses)
    rates, losses = rates[finite], losses[finite]
    kept = ~outliers(losses)
    rates, losses = rates[kept], losses[kept]
    if not len(losses):
        return Curve(rates, losses, losses, 0)
    lowest = int(np.argmin(running_median(losses)))
    decay = decay_of(planned)
    # both sides of the minimum separately, or a sudden divergence would be smoothed over it
    smooth = np.concatenate((smoothed(losses[: lowest + 1], decay), smoothed(losses[lowest + 1 :], decay)))
    return Curve(rates, losses, smooth, lowest)


def falling(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Rates and smoothed losses of a curve from its start to its lowest point, each (k,).

    Raises RunFailedError if the curve has too few points, or if the loss does not fall by more than its noise.
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
    return curve.rates[: lowest + 1], curve.smooth[: lowest + 1]


def valley(rates: np.ndarray, losses: np.ndarray) -> float:
    """The middle of the longest decreasing subsequence of the losses.

    fastai's default, `valley`, except that gaps count towards the length. It depends on the first rate of the test.
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


METHODS: dict[Method, Callable[[np.ndarray, np.ndarray], float]] = {
    # Half the rate with the smallest loss. arXiv 1506.01186, section 3.3, takes that rate itself as the upper bound of
    # a cycle, but a test finds the divergence behind it only to about a factor of two.
    "bound": lambda rates, losses: float(rates[np.argmin(losses)]) / 2,
    # The steepest slope against log(rate): fastai's `steep`, and Lightning's rule but for the slope against the rate.
    "steepest": lambda rates, losses: float(rates[np.argmin(np.gradient(losses, np.log(rates)))]),
    "valley": valley,
    # A tenth of the rate with the smallest loss: fastai's `minimum` (S. Gugger, "How do you find a good learning
    # rate", 2018).
    "minimum": lambda rates, losses: float(rates[np.argmin(losses)]) / 10,
}
"""The maximum rate by each method, from the rates and smoothed losses of the falling part of a curve, each (k,)."""


def first_fall(rates: np.ndarray, losses: np.ndarray) -> float:
    """The rate at which the loss starts to fall: after it, the loss stays below CLEAR_FALL of its whole fall.

    The lower bound of arXiv 1506.01186, section 3.3.
    """
    threshold = losses.max() - CLEAR_FALL * (losses.max() - losses.min())
    return float(rates[min(np.flatnonzero(losses > threshold)[-1] + 1, len(rates) - 1)])


def suggest(curve: Curve) -> dict[Method, Suggestion]:
    """Maximum and minimum rate by each method, to four digits.

    The minimum is the rate at which the loss starts to fall, clipped so that maximum / minimum is within RATIOS. Raises
    RunFailedError if the loss does not clearly fall.
    """
    rates, losses = falling(curve)
    start = first_fall(rates, losses)
    found: dict[Method, Suggestion] = {}
    for method, rule in METHODS.items():
        maximum = float(f"{rule(rates, losses):.4g}")
        minimum = min(max(start, maximum / RATIOS[1]), maximum / RATIOS[0])
        found[method] = Suggestion(maximum, float(f"{minimum:.4g}"))
    return found
