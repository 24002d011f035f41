"""Galleries: which predictions are selected, in which order, and what the figures show."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastcifar.analysis.evaluation_figures import confusion_figure, reliability_figure
from fastcifar.analysis.galleries import (
    Answer,
    as_rows,
    failures_by_class,
    most_confidently_correct,
    most_confidently_wrong,
)
from fastcifar.analysis.gallery_figures import failures_figure, gallery_figure, grad_cam_figure, overlay
from fastcifar.analysis.metrics import reliability

NAMES = ["cat", "dog", "ship"]
LOGITS = np.log([[0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.9, 0.05, 0.05]])
LABELS = np.array([1, 0, 1, 2, 0])
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def texts(figure: Any) -> list[str]:
    """All texts in a figure's axes."""
    found = [text.get_text() for axis in figure.axes for text in axis.texts]
    return found + [axis.get_title() for axis in figure.axes]


def test_most_confident_first_and_ties_by_index() -> None:
    wrong = most_confidently_wrong(LOGITS, LABELS)
    assert [answer.index for answer in wrong] == [1, 0, 2]
    assert (wrong[0].label, wrong[0].prediction, wrong[0].is_correct) == (0, 1, False)
    assert (wrong[0].label_probability, wrong[0].prediction_probability) == pytest.approx((0.1, 0.8))
    assert [answer.index for answer in most_confidently_correct(LOGITS, LABELS)] == [4, 3]
    by_class = failures_by_class(LOGITS, LABELS)
    assert [[answer.index for answer in answers] for answers in by_class] == [[1], [0, 2], []]
    assert [[answer.index for answer in answers] for answers in failures_by_class(LOGITS, LABELS, 1)] == [[1], [0], []]


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(0, 30))
def test_any_gallery_is_the_head_of_the_sorted_answers(seed: int, samples: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.integers(0, 3, (samples, 3)).astype(float)  # many ties
    labels = rng.integers(0, 3, samples)
    for select, is_correct in ((most_confidently_wrong, False), (most_confidently_correct, True)):
        answers = select(logits, labels, count)
        total = int(((logits.argmax(1) == labels) == is_correct).sum())
        assert len(answers) == min(count, total)
        assert answers == select(logits, labels, samples)[:count]
        keys = [(-answer.prediction_probability, answer.index) for answer in answers]
        assert keys == sorted(keys)
        assert all(answer.is_correct == is_correct and labels[answer.index] == answer.label for answer in answers)


def test_rows_for_json() -> None:
    assert as_rows([Answer(7, 0, 0.25, 2, 0.5)], NAMES) == [
        {"index": 7, "true": "cat", "true_probability": 0.25, "predicted": "ship", "predicted_probability": 0.5}
    ]


def test_gallery_figures() -> None:
    figure = gallery_figure(most_confidently_wrong(LOGITS, LABELS), IMAGES, NAMES, "Wrong")
    assert texts(figure) == [
        *("predicted dog 80.0%", "true cat 10.0%", "predicted cat 60.0%", "true dog 30.0%"),
        *("predicted cat 60.0%", "true dog 30.0%", "no. 1", "no. 0", "no. 2"),
    ]
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), IMAGES[1])
    assert figure.axes[0].images[0].get_interpolation() == "nearest"
    correct = gallery_figure(most_confidently_correct(LOGITS, LABELS), IMAGES, NAMES)
    assert texts(correct)[:2] == ["cat 90.0%", "ship 60.0%"]
    failures = texts(failures_figure(failures_by_class(LOGITS, LABELS), IMAGES, NAMES))
    assert [text for text in failures if text in NAMES] == NAMES
    assert failures.count("no mistakes") == 1
    assert "dog 80.0%" in failures


def test_empty_galleries_say_so() -> None:
    heat = np.zeros((0, 32, 32))
    for figure in (gallery_figure([], IMAGES, NAMES, "T"), grad_cam_figure([], IMAGES, heat, heat, NAMES, "T")):
        assert [text.get_text() for text in figure.texts] == ["T", "no such images"]
    assert "no mistakes" in texts(failures_figure([[], [], []], IMAGES, NAMES))


def test_heat_of_wrong_and_of_correct_predictions() -> None:
    heat = np.zeros((3, 32, 32))
    heat[0, :8, :8] = 1
    found = texts(grad_cam_figure(most_confidently_wrong(LOGITS, LABELS), IMAGES, heat, heat[::-1], NAMES))
    assert [found.count(text) for text in ("predicted", "true", "no heat")] == [3, 3, 4]
    found = texts(grad_cam_figure(most_confidently_correct(LOGITS, LABELS), IMAGES, heat[:2], heat[:2], NAMES))
    assert [found.count(text) for text in ("heat", "true", "no heat")] == [2, 0, 1]
    result = overlay(np.full((32, 32, 3), 100, np.uint8), np.linspace(0, 1, 32)[None].repeat(32, 0))
    assert (result.dtype, result.shape) == (np.uint8, (32, 32, 3))
    assert (np.diff(result[0].astype(float) @ [0.299, 0.587, 0.114]) > 0).all()  # brighter where it is hotter


def test_confusion_and_reliability_figures() -> None:
    figure = confusion_figure(np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]]), NAMES, "T")
    assert [text.get_text() for text in figure.axes[0].texts] == ["3", "1", "0", "0", "2", "0", "0", "0", "0"]
    many = [f"class {number}" for number in range(21)]
    assert not confusion_figure(np.eye(21, dtype=int), many).axes[0].texts
    _, lower = reliability_figure(reliability(LOGITS, LABELS), "T").axes
    assert len(lower.patches) == len({0.6, 0.8, 0.9})
