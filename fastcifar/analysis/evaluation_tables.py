"""The metrics of an evaluation as plain-text tables for a terminal; every line of another set than CIFAR-10 says so.

Every function takes what `evaluation.summarise` returns.
"""

from typing import Any

from fastcifar.data.cifar10 import not_cifar10
from fastcifar.evaluation import evaluations_of, title_of

MAX_CLASSES = 20
"""A confusion matrix of more classes does not fit a terminal."""
CELL = 32
"""Characters of a column of accuracies with intervals."""
SHORT = 5
"""Characters of a class name above a column."""


def tables(summary: dict[str, Any]) -> str:
    """All tables, with blank lines between."""
    blocks = [accuracy_table(summary), confusion_table(summary), confusions_list(summary), calibration_table(summary)]
    return "\n\n".join(block for block in blocks if block)


def accuracy_table(summary: dict[str, Any]) -> str:
    """Accuracy and 95% interval by class and overall, for both kinds of evaluation; classes without images left out."""
    views, primary = evaluations_of(summary["primary_metric"]), summary["primary_metric"]
    rows = [
        (name, [summary["views"][view]["per_class"][name] for view in views])
        for name in summary["class_names"]
        if summary["views"]["single_view"]["per_class"][name]["samples"]
    ]
    rows.append(("all", [summary["views"][view]["accuracy"] for view in views]))
    width = max(len(name) for name in ["class", *(name for name, _ in rows)])
    heads = [f"{name + (' (primary metric)' if view == primary else ''):>{CELL}}" for view, name in views.items()]
    lines = [f"{'class':{width}}  images{''.join(heads)}"]
    for name, accuracies in rows:
        cells = "".join(f"{_with_interval(accuracy):>{CELL}}" for accuracy in accuracies)
        lines.append(f"{name:{width}}  {accuracies[0]['samples']:6}{cells}{not_cifar10(summary['dataset'])}")
    return "\n".join([*lines, "in brackets: 95% Wilson interval, in percent"])


def confusion_table(summary: dict[str, Any]) -> str:
    """Number of images by true class (row) and predicted class (column), "." for none; empty with many classes."""
    names, matrix = summary["class_names"], _primary(summary)["confusion_matrix"]
    if len(names) > MAX_CLASSES:
        return ""
    width, cell = max(map(len, names)), max(SHORT, len(str(max(map(max, matrix))))) + 1
    lines = [
        _title(summary, "confusion matrix, row = true class, column = predicted class"),
        " " * width + "".join(f"{name[:SHORT]:>{cell}}" for name in names),
    ]
    for name, row in zip(names, matrix, strict=True):
        lines.append(f"{name:{width}}" + "".join(f"{count or '.':>{cell}}" for count in row))
    return "\n".join(lines)


def confusions_list(summary: dict[str, Any], count: int = 5) -> str:
    """The `count` most frequent mistakes, one a line; empty if there are none."""
    found = _primary(summary)["top_confusions"][:count]
    if not found:
        return ""
    phrases = [f"{item['label']} predicted as {item['prediction']}" for item in found]
    width = max(map(len, phrases))
    lines = [_title(summary, "most frequent mistakes")]
    for phrase, item in zip(phrases, found, strict=True):
        lines.append(f"{phrase:{width}}  {item['count']:6}  {item['fraction']:6.1%} of {item['label']}")
    return "\n".join(lines)


def calibration_table(summary: dict[str, Any]) -> str:
    """Confidence against accuracy, and scores of the probabilities, for both kinds of evaluation."""
    rows = {
        "accuracy": lambda view: f"{view['accuracy']['value']:.2%}",
        "mean confidence": lambda view: f"{view['mean_confidence']:.2%}",
        "expected calibration error": lambda view: f"{view['expected_calibration_error']:.2%}",
        "negative log-likelihood (nats)": lambda view: f"{view['negative_log_likelihood']:.4f}",
        "Brier score (0 to 2)": lambda view: f"{view['brier_score']:.4f}",
    }
    names = evaluations_of(summary["primary_metric"])
    heads = "".join(f"{name:>16}" for name in names.values())
    lines = [f"{'calibration':32}{heads}{not_cifar10(summary['dataset'])}"]
    for row, text in rows.items():
        lines.append(f"{row:32}" + "".join(f"{text(summary['views'][view]):>16}" for view in names))
    return "\n".join(lines)


def _primary(summary: dict[str, Any]) -> dict[str, Any]:
    return summary["views"][summary["primary_metric"]]


def _title(summary: dict[str, Any], what: str) -> str:
    return f"{what} ({title_of(summary['primary_metric'])}){not_cifar10(summary['dataset'])}"


def _with_interval(accuracy: dict[str, Any]) -> str:
    return f"{accuracy['value']:.2%} [{100 * accuracy['low']:.1f}, {100 * accuracy['high']:.1f}]"
