"""Selects predictions worth looking at: the most confidently wrong and correct ones, and the mistakes of each class.

Ordered by falling confidence, ties by index, so the same logits give the same gallery.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcifar.analysis import metrics

GALLERY_SIZE = 25
FAILURES_PER_CLASS = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """The prediction for one image; probabilities in 0..1, of the true and of the predicted class."""

    index: int
    """Position in the test set, as `fastcifar.data.prepared.read_split` returns it."""
    label: int
    label_probability: float
    prediction: int
    prediction_probability: float

    @property
    def is_correct(self) -> bool:
        """Whether the prediction is the true class."""
        return self.prediction == self.label


def most_confidently_wrong(logits: Any, labels: Any, count: int = GALLERY_SIZE) -> list[Answer]:
    """Up to `count` wrong predictions, the most confident first.

    Logits (n, classes) and labels (n,), checked as in `metrics`, which raises UserError.
    """
    return _most_confident(logits, labels, count, is_correct=False)


def most_confidently_correct(logits: Any, labels: Any, count: int = GALLERY_SIZE) -> list[Answer]:
    """Up to `count` correct predictions, the most confident first; arguments as above."""
    return _most_confident(logits, labels, count, is_correct=True)


def failures_by_class(logits: Any, labels: Any, count: int = FAILURES_PER_CLASS) -> list[list[Answer]]:
    """By true class, up to `count` wrong predictions, the most confident first; arguments as above."""
    wrong = most_confidently_wrong(logits, labels, len(np.asarray(labels)))
    classes = np.asarray(logits).shape[1]
    return [[answer for answer in wrong if answer.label == label][:count] for label in range(classes)]


def as_rows(answers: list[Answer], class_names: list[str]) -> list[dict[str, Any]]:
    """The answers as JSON values, with class names instead of labels."""
    return [
        {
            "index": answer.index,
            "true": class_names[answer.label],
            "true_probability": answer.label_probability,
            "predicted": class_names[answer.prediction],
            "predicted_probability": answer.prediction_probability,
        }
        for answer in answers
    ]


def _most_confident(logits: Any, labels: Any, count: int, *, is_correct: bool) -> list[Answer]:
    targets = np.asarray(labels)
    metrics.accuracy(logits, targets)  # checks both
    probabilities, predicted = metrics.probabilities(logits), np.asarray(logits).argmax(1)
    selected = np.flatnonzero((predicted == targets) == is_correct)
    ranked = selected[np.argsort(-probabilities[selected, predicted[selected]], kind="stable")][:count]
    return [
        Answer(
            index=int(at),
            label=int(targets[at]),
            label_probability=float(probabilities[at, targets[at]]),
            prediction=int(predicted[at]),
            prediction_probability=float(probabilities[at, predicted[at]]),
        )
        for at in ranked
    ]
