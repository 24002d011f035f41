"""How right, and how rightly confident, a classifier is: formulas on logits (n, classes) and labels (n,), no more.

`logits` are real numbers, any kind of array or CPU tensor; `labels` integers in 0..classes-1. All arithmetic is
float64. UserError for shapes that do not fit, no samples, labels out of range, and logits that are not finite.
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
    """`right` of `samples`, as a fraction in 0..1 with its 95% interval; the fraction of no samples is None."""

    right: int
    samples: int
    fraction: float | None
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """`count` images of class `label` were taken for `prediction`; `fraction` of the class's images, 0..1."""

    label: int
    prediction: int
    count: int
    fraction: float


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Predictions with a confidence in (low, high]: their mean confidence and their accuracy, None where none are."""

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


def predictions(logits: Any) -> np.ndarray:
    """The class of the largest logit, int64 (n,); the first of equal ones."""
    return _checked_logits(logits).argmax(1)


def wilson_interval(right: int, samples: int, z: float = Z_975) -> tuple[float, float]:
    """Interval of a fraction, within 0..1; (0, 1) of no samples. `z`: quantile of the normal distribution, 1.96 for 95%.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    if not 0 <= right <= samples:
        raise UserError(f"{right} right of {samples} samples is no fraction")
    if samples == 0:
        return 0.0, 1.0
    fraction, z2_n = right / samples, z * z / samples
    middle = (fraction + z2_n / 2) / (1 + z2_n)
    half = z * math.sqrt(fraction * (1 - fraction) / samples + z2_n / (4 * samples)) / (1 + z2_n)
    # the ends are 0 and 1 exactly where none or all are right; rounding would put them beside
    return (0.0 if right == 0 else middle - half, 1.0 if right == samples else middle + half)


def accuracy(logits: Any, labels: Any) -> Accuracy:
    """Over all samples."""
    values, targets = _checked(logits, labels)
    return _accuracy(int((values.argmax(1) == targets).sum()), len(targets))


def accuracy_per_class(logits: Any, labels: Any) -> list[Accuracy]:
    """Of the samples of each class (its recall), by label; also of classes without samples."""
    matrix = confusion_matrix(logits, labels)
    return [_accuracy(int(matrix[label, label]), int(row.sum())) for label, row in enumerate(matrix)]


def confusion_matrix(logits: Any, labels: Any) -> np.ndarray:
    """Counts, int64 (classes, classes): row the true class, column the predicted one."""
    values, targets = _checked(logits, labels)
    classes = values.shape[1]
    pairs = targets * classes + values.argmax(1)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def top_confusions(matrix: np.ndarray, count: int = 10) -> list[Confusion]:
    """The `count` most frequent mistakes of a confusion matrix; equal ones by label, then by prediction."""
    samples = matrix.sum(1)
    found = [
        Confusion(
            int(label), int(prediction), int(matrix[label, prediction]), matrix[label, prediction] / samples[label]
        )
        for label, prediction in np.argwhere(matrix)
        if label != prediction
    ]
    return sorted(found, key=lambda item: -item.count)[:count]  # stable, and argwhere goes row by row


def reliability(logits: Any, labels: Any, bins: int = BINS) -> list[ReliabilityBin]:
    """Confidence, the largest probability, against accuracy, in `bins` bins of equal width over 0..1.

    A bin is (low, high], so a confidence on an edge belongs to the bin below it, and a confidence of exactly 1, the
    last edge, to the last bin. None can be 0, as the largest of c probabilities is at least 1 / c.
    Source: C. Guo et al., "On calibration of modern neural networks" (arXiv 1706.04599), section 2.
    """
    if bins < 1:
        raise UserError(f"bins is {bins}, but must be at least 1")
    values, targets = _checked(logits, labels)
    confidence = probabilities(values).max(1)
    is_correct = values.argmax(1) == targets
    edges = np.arange(bins + 1) / bins
    # the first edge at or above; beyond the last one only by rounding
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    found: list[ReliabilityBin] = []
    for number in range(bins):
        inside = place == number
        samples = int(inside.sum())
        # fsum, here and below: exact, so the order of the samples does not matter
        means = [math.fsum(column[inside]) / samples if samples else None for column in (confidence, is_correct)]
        found.append(ReliabilityBin(float(edges[number]), float(edges[number + 1]), samples, means[0], means[1]))
    return found


def expected_calibration_error(bins: list[ReliabilityBin]) -> float:
    """Mean distance of confidence and accuracy over the bins, weighted by samples, 0..1 (Guo et al., formula 3)."""
    samples = sum(item.samples for item in bins)
    gaps = (item.samples * abs(item.confidence - item.accuracy) for item in bins if item.samples)  # type: ignore
    return math.fsum(gaps) / samples


def negative_log_likelihood(logits: Any, labels: Any) -> float:
    """Mean of -log of the true class's probability, in nats: the cross-entropy without smoothing."""
    return cross_entropy(logits, labels, 0.0)


def cross_entropy(logits: Any, labels: Any, smoothing: float) -> float:
    """The loss of a training with label smoothing, in nats: `smoothing` of the target is spread over all classes.

    Source: C. Szegedy et al., "Rethinking the Inception architecture" (arXiv 1512.00567), section 7.
    """
    values, targets = _checked(logits, labels)
    logs = log_probabilities(values)
    of_the_true = math.fsum(logs[np.arange(len(targets)), targets]) / len(targets)
    return -(1 - smoothing) * of_the_true - (smoothing and smoothing * math.fsum(logs.mean(1)) / len(targets))


def brier_score(logits: Any, labels: Any) -> float:
    """Mean squared distance of the probabilities from the truth, summed over classes, 0 (perfect) to 2.

    Source: G. W. Brier, "Verification of forecasts expressed in terms of probability", 1950.
    """
    values, targets = _checked(logits, labels)
    distance = probabilities(values) - np.eye(values.shape[1])[targets]
    return math.fsum((distance**2).sum(1)) / len(targets)


def _accuracy(right: int, samples: int) -> Accuracy:
    return Accuracy(right, samples, right / samples if samples else None, *wilson_interval(right, samples))


def _checked_logits(logits: Any) -> np.ndarray:
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise UserError(f"logits must be (samples, classes), got {values.shape}")
    if not np.isfinite(values).all():
        raise UserError(
            f"logits must be finite, but those of sample {int(np.argwhere(~np.isfinite(values))[0, 0])} are not"
        )
    return values


def _checked(logits: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    values, targets = _checked_logits(logits), np.asarray(labels)
    if targets.shape != values.shape[:1] or not np.issubdtype(targets.dtype, np.integer):
        raise UserError(f"labels must be integers ({len(values)},), got {targets.dtype} {targets.shape}")
    if len(targets) == 0:
        raise UserError("there are no samples to judge")
    if targets.min() < 0 or targets.max() >= values.shape[1]:
        raise UserError(f"labels go from {targets.min()} to {targets.max()}, but there are {values.shape[1]} classes")
    return values, targets.astype(np.int64)
