"""Which answers to look at: the most confidently wrong and right ones, and the mistakes of each class.

The order is that of the confidence, equal ones by index, so the same logits give the same gallery.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcifar.analysis import metrics as classification

GALLERY_SIZE = 25
FAILURES_PER_CLASS = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """What the network said of one image; the probabilities, 0..1, are those of the two classes."""

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
    """Up to `count` wrong answers, the most confident first; none if none is wrong.

    Logits (n, classes) and labels (n,), checked as everywhere in `classification`.
    """
    return _most_confident(logits, labels, count, right=False)


def most_confidently_correct(logits: Any, labels: Any, count: int = GALLERY_SIZE) -> list[Answer]:
    """Up to `count` right answers, the most confident first; arguments as above."""
    return _most_confident(logits, labels, count, right=True)


def failures_by_class(logits: Any, labels: Any, count: int = FAILURES_PER_CLASS) -> list[list[Answer]]:
    """For each true class, by label, its up to `count` most confidently wrong answers; arguments as above."""
    wrong = _most_confident(logits, labels, len(np.asarray(labels)), right=False)
    classes = np.asarray(logits).shape[1]
    return [[answer for answer in wrong if answer.label == label][:count] for label in range(classes)]


def as_rows(answers: list[Answer], class_names: list[str]) -> list[dict[str, Any]]:
    """The answers as JSON holds them, classes by name."""
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


def _most_confident(logits: Any, labels: Any, count: int, *, right: bool) -> list[Answer]:
    targets = np.asarray(labels)
    classification.accuracy(logits, targets)  # refuses what does not fit
    fractions, predicted = classification.probabilities(logits), classification.predictions(logits)
    chosen = np.flatnonzero((predicted == targets) == right)
    ranked = chosen[np.argsort(-fractions[chosen, predicted[chosen]], kind="stable")][:count]
    return [
        Answer(
            index=int(at),
            label=int(targets[at]),
            label_probability=float(fractions[at, targets[at]]),
            prediction=int(predicted[at]),
            prediction_probability=float(fractions[at, predicted[at]]),
        )
        for at in ranked
    ]
