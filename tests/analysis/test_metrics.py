"""The metrics: examples computed by hand or published, and properties that hold for any logits."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastcifar.analysis import metrics as c
from fastcifar.errors import UserError

LABELS = np.array([0, 0, 0, 1, 1, 2])


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    samples, classes = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = np.round(rng.normal(0, draw(st.sampled_from([0.1, 3, 300])), (samples, classes)), 1)
    return logits, rng.integers(0, classes, samples)


@pytest.mark.parametrize(
    ("num_correct", "samples", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),  # 1.96**2 / (10 + 1.96**2)
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I
        (15, 148, 0.0624, 0.1605),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_matches_published_tables(num_correct: int, samples: int, low: float, high: float) -> None:
    assert c.wilson_interval(num_correct, samples) == pytest.approx((low, high), abs=6e-5)


@given(st.integers(0, 500), st.integers(0, 500))
def test_wilson_interval_solves_its_quadratic_and_is_symmetric(num_correct: int, num_wrong: int) -> None:
    samples = num_correct + num_wrong
    low, high = c.wilson_interval(num_correct, samples)
    assert c.wilson_interval(num_wrong, samples) == pytest.approx((1 - high, 1 - low), abs=1e-12)
    if samples == 0:
        assert (low, high) == (0, 1)
        return
    assert 0 <= low <= num_correct / samples <= high <= 1
    for end in (low, high):  # by definition, fractions 1.96 of their own standard errors away
        assert (num_correct / samples - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / samples, abs=1e-12)


def test_wilson_interval_refuses_what_is_not_a_fraction() -> None:
    with pytest.raises(UserError, match=r"num_correct is 3.* 2$"):
        c.wilson_interval(3, 2)


def test_accuracy_and_confusions_by_hand() -> None:
    logits = np.eye(3)[[0, 0, 1, 1, 0, 2]]
    assert c.accuracy(logits, LABELS) == c.Accuracy(4, 6, 4 / 6, *c.wilson_interval(4, 6))
    per_class = c.accuracy_per_class(logits, LABELS)
    assert [(each.num_correct, each.samples) for each in per_class] == [(2, 3), (1, 2), (1, 1)]
    matrix = c.confusion_matrix(logits, LABELS)
    assert matrix.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert c.top_confusions(matrix) == [(0, 1, 1), (1, 0, 1)]
    assert c.accuracy_per_class(np.eye(3)[[0]], [0])[1:] == [c.Accuracy(0, 0, None, 0.0, 1.0)] * 2
    tensors = torch.tensor(logits, dtype=torch.float32), torch.tensor(LABELS)
    assert c.accuracy(*tensors) == c.accuracy(logits, LABELS)


def test_order_of_confusions_and_of_equal_logits() -> None:
    matrix = np.array([[9, 2, 5], [5, 9, 0], [1, 5, 9]])
    assert c.top_confusions(matrix, 4) == [(0, 2, 5), (1, 0, 5), (2, 1, 5), (0, 1, 2)]
    assert c.top_confusions(np.diag([3, 4])) == []
    assert c.confusion_matrix([[1, 1, 0], [0, 2, 2]], [0, 1]).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_reliability_and_its_edges_by_hand() -> None:
    """Confidences 0.5, 0.75 and 1 with 4 bins: each on an edge, so in the bin below; 0.8 is inside the last."""
    logits = np.array([[0, 0], [math.log(3), 0], [0, 1000], [math.log(4), 0]], dtype=float)
    bins = c.reliability(logits, [0, 1, 1, 0], bins=4)
    assert [(item.low, item.high, item.samples) for item in bins] == [
        (0, 0.25, 0),
        (0.25, 0.5, 1),
        (0.5, 0.75, 1),
        (0.75, 1, 2),
    ]
    assert bins[0] == c.ReliabilityBin(0.0, 0.25, 0, None, None)
    assert [item.accuracy for item in bins[1:]] == [1, 0, 1]
    assert [item.confidence for item in bins[1:]] == pytest.approx([0.5, 0.75, 0.9])
    assert c.expected_calibration_error(bins) == pytest.approx((0.5 + 0.75 + 2 * 0.1) / 4)


def test_scores_by_hand() -> None:
    logits = np.log([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]])
    labels = np.array([0, 1])
    assert c.negative_log_likelihood(logits, labels) == pytest.approx(-(math.log(0.7) + math.log(0.25)) / 2)
    first, second = 0.3**2 + 0.2**2 + 0.1**2, 0.25**2 + 0.75**2 + 0.5**2
    assert c.brier_score(logits, labels) == pytest.approx((first + second) / 2)
    assert c.brier_score([[800.0, 0.0]], [1]) == 2
    assert c.brier_score([[800.0, 0.0]], [0]) == 0
    assert c.negative_log_likelihood([[800.0, 0.0]], [1]) == 800


@given(answers())
def test_properties_of_any_answers(pair: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = pair
    classes = logits.shape[1]
    matrix = c.confusion_matrix(logits, labels)
    assert matrix.sum() == len(labels)
    assert matrix.sum(1).tolist() == np.bincount(labels, minlength=classes).tolist()
    assert matrix.sum(0).tolist() == np.bincount(logits.argmax(1), minlength=classes).tolist()
    assert np.trace(matrix) == c.accuracy(logits, labels).num_correct
    assert sum(count for _, _, count in c.top_confusions(matrix, 100)) == len(labels) - np.trace(matrix)
    bins = c.reliability(logits, labels)
    assert sum(item.samples for item in bins) == len(labels)
    for item in bins:
        assert item.confidence is None or item.low - 1e-12 < item.confidence <= item.high + 1e-12
    assert 0 <= c.expected_calibration_error(bins) <= 1
    assert 0 <= c.brier_score(logits, labels) <= 2
    assert c.probabilities(logits).sum(1) == pytest.approx(np.ones(len(labels)))
    torch_loss = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(labels))
    assert c.negative_log_likelihood(logits, labels) == pytest.approx(torch_loss.item(), abs=1e-9)


@given(answers(), st.randoms(use_true_random=False))
def test_the_order_of_the_samples_changes_nothing(pair: tuple[np.ndarray, np.ndarray], random: Any) -> None:
    logits, labels = pair
    order = list(range(len(labels)))
    random.shuffle(order)
    for formula in (c.accuracy, c.accuracy_per_class, c.reliability, c.negative_log_likelihood, c.brier_score):
        assert formula(logits[order], labels[order]) == formula(logits, labels)
    assert (c.confusion_matrix(logits[order], labels[order]) == c.confusion_matrix(logits, labels)).all()


@given(answers(), st.floats(-100, 100))
def test_a_constant_on_the_logits_changes_nothing(pair: tuple[np.ndarray, np.ndarray], constant: float) -> None:
    logits, _ = pair
    assert c.log_probabilities(logits + constant) == pytest.approx(c.log_probabilities(logits), abs=1e-9)


@pytest.mark.parametrize(
    ("logits", "labels", "text"),
    [
        ([1.0, 2.0], [0], r"logits .*\(2,\)"),
        ([[1.0, math.nan]], [0], "logits .* sample 0 "),
        ([[1.0, 2.0]], [0, 1], r"labels .* int64 \(2,\)"),
        ([[1.0, 2.0]], [0.0], r"labels .* float64 \(1,\)"),
        ([[1.0, 2.0]], [2], "labels .* 2 to 2.* 2 classes"),
        (np.empty((0, 2)), np.empty(0, int), "no samples"),
    ],
)
def test_invalid_logits_and_labels(logits: Any, labels: Any, text: str) -> None:
    for formula in (c.accuracy, c.confusion_matrix, c.reliability, c.negative_log_likelihood, c.brier_score):
        with pytest.raises(UserError, match=text):
            formula(logits, labels)
    with pytest.raises(UserError, match="bins is 0"):
        c.reliability([[1.0]], [0], bins=0)
