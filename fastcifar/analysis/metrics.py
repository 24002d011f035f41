"""Accuracy, confusions and calibration of a classifier, from logits (n, classes) and labels (n,).

`logits` are real numbers in any array or CPU tensor, `labels` integers in 0..classes-1. All arithmetic is float64.
Every function raises UserError for shapes that do not fit, no samples, labels out of range and non-finite logits.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcifar.analysis.statistics import Z_975
from fastcifar.errors import UserError

BINS = 15
"""Bins of the reliability diagram, as in Guo et al. (arXiv 1706.04599)."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """`value` = num_correct / samples, None without samples, and its 95% interval (Wilson), all in 0..1."""

    num_correct: int
    samples: int
    value: float | None
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Predictions with a confidence in (low, high]; `confidence` and `accuracy` are means, None for an empty bin."""

    low: float
    high: float
    samples: int
    confidence: float | None
    accuracy: float | None


def log_probabilities(logits: Any) -> np.ndarray:
    """Logarithm of the softmax, float64 (n, classes); never overflows."""
    values = _checked_logits(logits)
    shifted = values - values.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def probabilities(logits: Any) -> np.ndarray:
    """Softmax, float64 (n, classes) in 0..1."""
    return np.exp(log_probabilities(logits))


def wilson_interval(num_correct: int, samples: int) -> tuple[float, float]:
    """95% interval of a fraction, within 0..1; (0, 1) without samples.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    if not 0 <= num_correct <= samples:
        raise UserError(f"num_correct is {num_correct}, but must be between 0 and the number of samples, {samples}")
    if samples == 0:
        return 0.0, 1.0
    fraction, z2_n = num_correct / samples, Z_975 * Z_975 / samples
    middle = (fraction + z2_n / 2) / (1 + z2_n)
    half = Z_975 * math.sqrt(fraction * (1 - fraction) / samples + z2_n / (4 * samples)) / (1 + z2_n)
    # exactly 0 and 1 if none or all are correct; rounding could miss them
    return (0.0 if num_correct == 0 else middle - half, 1.0 if num_correct == samples else middle + half)


def accuracy(logits: Any, labels: Any) -> Accuracy:
    """Accuracy over all samples."""
    values, targets = _checked(logits, labels)
    return _accuracy(int((values.argmax(1) == targets).sum()), len(targets))


def accuracy_per_class(logits: Any, labels: Any) -> list[Accuracy]:
    """Accuracy over the samples of each class (its recall), by label; also for classes without samples."""
    matrix = confusion_matrix(logits, labels)
    return [_accuracy(int(matrix[label, label]), int(row.sum())) for label, row in enumerate(matrix)]


def confusion_matrix(logits: Any, labels: Any) -> np.ndarray:
    """Number of samples by true class (row) and predicted class (column), int64 (classes, classes)."""
    values, targets = _checked(logits, labels)
    classes = values.shape[1]
    pairs = targets * classes + values.argmax(1)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def top_confusions(matrix: np.ndarray, count: int = 10) -> list[tuple[int, int, int]]:
    """The most frequent mistakes as (label, prediction, number of samples); equal ones by label, then by prediction."""
    found = [(int(label), int(prediction), int(matrix[label, prediction])) for label, prediction in np.argwhere(matrix)]
    mistakes = [item for item in found if item[0] != item[1]]
    return sorted(mistakes, key=lambda item: -item[2])[:count]  # stable, and argwhere goes row by row


def reliability(logits: Any, labels: Any, bins: int = BINS) -> list[ReliabilityBin]:
    """Accuracy against confidence (the largest probability), in `bins` bins of equal width over 0..1.

    Bins are half-open, (low, high]: a confidence on an edge belongs to the bin below it. No confidence is 0, as the
    largest of c probabilities is at least 1 / c.
    Source: C. Guo et al., "On calibration of modern neural networks" (arXiv 1706.04599), section 2.
    """
    if bins < 1:
        raise UserError(f"bins is {bins}, but must be at least 1")
    values, targets = _checked(logits, labels)
    confidence = probabilities(values).max(1)
    is_correct = values.argmax(1) == targets
    edges = np.arange(bins + 1) / bins
    # clipped, because rounding can push a confidence above 1
    bin_of = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    found: list[ReliabilityBin] = []
    for number in range(bins):
        inside = bin_of == number
        samples = int(inside.sum())
        # fsum, here and below: exact, so the order of the samples does not matter
        means = [math.fsum(column[inside]) / samples if samples else None for column in (confidence, is_correct)]
        found.append(ReliabilityBin(float(edges[number]), float(edges[number + 1]), samples, means[0], means[1]))
    return found


def expected_calibration_error(bins: list[ReliabilityBin]) -> float:
    """Mean of |accuracy - confidence| over the bins, weighted by samples, 0..1 (Guo et al., formula 3)."""
    samples = sum(item.samples for item in bins)
    gaps = (item.samples * abs(item.confidence - item.accuracy) for item in bins if item.samples)  # type: ignore
    return math.fsum(gaps) / samples


def negative_log_likelihood(logits: Any, labels: Any) -> float:
    """Mean of -log(probability of the true class), in nats: the cross-entropy without label smoothing."""
    values, targets = _checked(logits, labels)
    return -math.fsum(log_probabilities(values)[np.arange(len(targets)), targets]) / len(targets)


def brier_score(logits: Any, labels: Any) -> float:
    """Mean squared distance between the probabilities and the one-hot label, summed over classes, 0 (perfect) to 2.

    Source: G. W. Brier, "Verification of forecasts expressed in terms of probability", 1950.
    """
    values, targets = _checked(logits, labels)
    distance = probabilities(values) - np.eye(values.shape[1])[targets]
    return math.fsum((distance**2).sum(1)) / len(targets)


def _accuracy(num_correct: int, samples: int) -> Accuracy:
    value = num_correct / samples if samples else None
    return Accuracy(num_correct, samples, value, *wilson_interval(num_correct, samples))


def _checked_logits(logits: Any) -> np.ndarray:
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise UserError(f"logits must be (samples, classes), got {values.shape}")
    if not np.isfinite(values).all():
        sample = int(np.argwhere(~np.isfinite(values))[0, 0])
        raise UserError(f"logits must be finite, but those of sample {sample} are not")
    return values


def _checked(logits: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    values, targets = _checked_logits(logits), np.asarray(labels)
    if targets.shape != values.shape[:1] or not np.issubdtype(targets.dtype, np.integer):
        raise UserError(f"labels must be integers ({len(values)},), got {targets.dtype} {targets.shape}")
    if len(targets) == 0:
        raise UserError("there are no samples to evaluate")
    if targets.min() < 0 or targets.max() >= values.shape[1]:
        raise UserError(f"labels go from {targets.min()} to {targets.max()}, but there are {values.shape[1]} classes")
    return values, targets.astype(np.int64)
