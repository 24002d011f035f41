"""The tables of an evaluation, of answers made by hand."""

import numpy as np
import pytest

from fastcifar.analysis.evaluation import Evaluation, summarise, title_of
from fastcifar.analysis.evaluation_tables import (
    accuracy_table,
    calibration_table,
    confusion_table,
    confusions_list,
    tables,
)


def evaluation(dataset: str = "cifar10", classes: int = 3) -> Evaluation:
    """Six images: of class 0 two right and one taken for 1; of class 1 all three right, one only if mirrored."""
    labels = np.array([0, 0, 0, 1, 1, 1])
    plain = np.zeros((6, classes), np.float32)
    plain[range(6), [0, 0, 1, 1, 1, 0]] = 2
    mirrored = plain.copy()
    mirrored[5, 1] = 5
    names = ["cat", "automobile", "dog", *(f"c{number}" for number in range(3, classes))]
    return Evaluation(names, dataset, "single_view", labels, {"single_view": plain, "flip_tta": mirrored})


def test_accuracy_table_leaves_out_classes_without_images() -> None:
    assert accuracy_table(summarise(evaluation())).splitlines() == [
        "class       images         one view (counts)            mirrored views",
        "cat                3       66.67% [20.8, 93.9]       66.67% [20.8, 93.9]",
        "automobile         3       66.67% [20.8, 93.9]     100.00% [43.9, 100.0]",
        "all                6       66.67% [30.0, 90.3]       83.33% [43.6, 97.0]",
        "in brackets: 95% interval (Wilson), in percent",
    ]


def test_confusion_table_and_list() -> None:
    summary = summarise(evaluation())
    assert confusion_table(summary).splitlines() == [
        "confusion matrix (one view; row: true class, column: predicted)",
        "             cat autom   dog",
        "cat            2     1     .",
        "automobile     1     2     .",
        "dog            .     .     .",
    ]
    assert confusions_list(summary).splitlines() == [
        "most frequent mistakes (one view)",
        "cat taken for automobile       1   33.3% of cat",
        "automobile taken for cat       1   33.3% of automobile",
    ]


def test_calibration_table() -> None:
    confidence = np.exp(2) / (np.exp(2) + 2)
    lines = calibration_table(summarise(evaluation())).splitlines()
    assert lines[0] == "calibration                             one view  mirrored views"
    assert lines[1] == "accuracy                                  66.67%          83.33%"
    assert lines[2].startswith(f"mean confidence                           {confidence:.2%}  ")
    assert lines[3].startswith(f"expected calibration error                {confidence - 4 / 6:.2%}  ")


def test_nothing_wrong_and_many_classes() -> None:
    perfect = Evaluation(
        ["a", "b"], "custom", "single_view", np.array([0, 1]), dict.fromkeys(("single_view", "flip_tta"), np.eye(2))
    )
    assert confusions_list(summarise(perfect)) == ""
    assert confusion_table(summarise(evaluation(classes=21))) == ""
    assert "\n\n\n" not in tables(summarise(perfect)) + tables(summarise(evaluation(classes=21)))


@pytest.mark.parametrize(("dataset", "marks"), [("synthetic", 6), ("custom", 6), ("cifar10", 0)])
def test_other_data_are_marked(dataset: str, marks: int) -> None:
    text = tables(summarise(evaluation(dataset)))
    assert text.count(f"  [{dataset} data, not CIFAR-10]") == text.count("not CIFAR-10") == marks


@pytest.mark.parametrize(
    ("dataset", "name"), [("cifar10", "CIFAR-10"), ("synthetic", "synthetic data"), ("custom", "custom data")]
)
def test_titles(dataset: str, name: str) -> None:
    assert title_of(evaluation(dataset), "Galleries") == f"Galleries: {name}, one view"
