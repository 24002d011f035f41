"""The text tables of an evaluation, for logits made by hand."""

import numpy as np
import pytest

from fastcifar.analysis.evaluation import Evaluation, figure_title, summarise
from fastcifar.analysis.evaluation_tables import (
    accuracy_table,
    calibration_table,
    confusion_table,
    confusions_list,
    tables,
)
from fastcifar.evaluation import title_of


def evaluation(dataset: str = "cifar10", classes: int = 3) -> Evaluation:
    """Six images: of class 0 two correct and one predicted as 1; of class 1 all correct, one of them by TTA only."""
    labels = np.array([0, 0, 0, 1, 1, 1])
    single = np.zeros((6, classes), np.float32)
    single[range(6), [0, 0, 1, 1, 1, 0]] = 2
    averaged = single.copy()
    averaged[5, 1] = 5
    names = ["cat", "automobile", "dog", *(f"c{number}" for number in range(3, classes))]
    return Evaluation(names, dataset, "single_view", labels, {"single_view": single, "flip_tta": averaged})


def test_accuracy_table_leaves_out_classes_without_images() -> None:
    head, *rows, _ = accuracy_table(summarise(evaluation())).splitlines()
    assert head.split()[:2] == ["class", "images"]
    assert f"{title_of('single_view')} (primary metric) " in head
    assert head.endswith(f" {title_of('flip_tta')}")
    assert [row.split() for row in rows] == [
        ["cat", "3", "66.67%", "[20.8,", "93.9]", "66.67%", "[20.8,", "93.9]"],
        ["automobile", "3", "66.67%", "[20.8,", "93.9]", "100.00%", "[43.9,", "100.0]"],
        ["all", "6", "66.67%", "[30.0,", "90.3]", "83.33%", "[43.6,", "97.0]"],
    ]
    assert len({len(line) for line in (head, *rows)}) == 1


def test_confusions_and_calibration() -> None:
    summary = summarise(evaluation())
    assert confusion_table(summary).splitlines()[1:] == [
        "             cat autom   dog",
        "cat            2     1     .",
        "automobile     1     2     .",
        "dog            .     .     .",
    ]
    rows = [line.split() for line in confusions_list(summary).splitlines()[1:]]
    assert [(row[0], row[-5], row[-4:]) for row in rows] == [
        ("cat", "automobile", ["1", "33.3%", "of", "cat"]),
        ("automobile", "cat", ["1", "33.3%", "of", "automobile"]),
    ]
    confidence = np.exp(2) / (np.exp(2) + 2)
    cells = [line[32:].split()[0] for line in calibration_table(summary).splitlines()[1:4]]
    assert cells == ["66.67%", f"{confidence:.2%}", f"{confidence - 4 / 6:.2%}"]


def test_no_mistakes_and_many_classes() -> None:
    logits = {"single_view": np.eye(2), "flip_tta": np.eye(2)}
    perfect = Evaluation(["a", "b"], "custom", "single_view", np.array([0, 1]), logits)
    assert confusions_list(summarise(perfect)) == ""
    assert confusion_table(summarise(evaluation(classes=21))) == ""
    assert "\n\n\n" not in tables(summarise(perfect)) + tables(summarise(evaluation(classes=21)))


@pytest.mark.parametrize(("dataset", "marks"), [("synthetic", 6), ("custom", 6), ("cifar10", 0)])
def test_other_data_are_marked(dataset: str, marks: int) -> None:
    text = tables(summarise(evaluation(dataset)))
    assert text.count(f"[{dataset} data, not CIFAR-10]") == text.count("not CIFAR-10") == marks
    assert (dataset in figure_title(evaluation(dataset), "Galleries")) == (dataset != "cifar10")
