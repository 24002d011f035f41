"""The figures of an evaluation as plain text for a terminal; those of another set than CIFAR-10 are marked.

Every function takes what `evaluation.summarise` returns.
"""

from typing import Any

from fastcifar.config import EVALUATION_NAMES, evaluations_of
from fastcifar.data.cifar10 import not_cifar10

WIDEST_MATRIX = 20
"""Classes; a wider confusion matrix fits no terminal."""
CELL = 26
"""Characters of a column of shares with intervals."""
SHORT = 5
"""Characters of a class's name above a column."""


def tables(summary: dict[str, Any]) -> str:
    """All of them, with blank lines between."""
    blocks = [accuracy_table(summary), confusion_table(summary), confusions_list(summary), calibration_table(summary)]
    return "\n\n".join(block for block in blocks if block)


def accuracy_table(summary: dict[str, Any]) -> str:
    """A line a class and one for all: images, then accuracy and 95% interval of either view."""
    mark, names = mark_of(summary), [name for name, figures in _by_class(summary) if figures["single_view"]["samples"]]
    width = max(len(name) for name in ["class", *names])
    views = evaluations_of(summary["counts"])
    heads = [f"{name + _counts(summary, view):>{CELL}}" for view, name in views.items()]
    lines = [f"{'class':{width}}  images{''.join(heads)}"]
    everything = {view: figures["accuracy"] for view, figures in summary["views"].items()}
    for name, figures in [*_by_class(summary), ("all", everything)]:
        if samples := figures["single_view"]["samples"]:
            fractions = "".join(f"{_fraction(figures[view]):>{CELL}}" for view in views)
            lines.append(f"{name:{width}}  {samples:8}{fractions}{mark}")
    return "\n".join([*lines, "in brackets: 95% interval (Wilson), in percent"])


def confusion_table(summary: dict[str, Any]) -> str:
    """Rows the true class, columns the predicted one, in images; "." for none. Empty with too many classes."""
    names, matrix = summary["class_names"], _counting(summary)["confusion_matrix"]
    if len(names) > WIDEST_MATRIX:
        return ""
    width, cell = max(map(len, names)), max(SHORT, len(str(max(map(max, matrix))))) + 1
    title = f"confusion matrix ({EVALUATION_NAMES[summary['counts']]}; row: true class, column: predicted){mark_of(summary)}"
    lines = [title, " " * width + "".join(f"{name[:SHORT]:>{cell}}" for name in names)]
    lines += [
        f"{name:{width}}" + "".join(f"{count or '.':>{cell}}" for count in row)
        for name, row in zip(names, matrix, strict=True)
    ]
    return "\n".join(lines)


def confusions_list(summary: dict[str, Any], count: int = 5) -> str:
    """The most frequent mistakes, a line each; empty where nothing is wrong."""
    found = _counting(summary)["top_confusions"][:count]
    if not found:
        return ""
    phrases = [f"{item['label']} taken for {item['prediction']}" for item in found]
    width = max(map(len, phrases))
    lines = [f"most frequent mistakes ({EVALUATION_NAMES[summary['counts']]}){mark_of(summary)}"]
    for phrase, item in zip(phrases, found, strict=True):
        lines.append(f"{phrase:{width}}  {item['count']:6}  {item['fraction']:6.1%} of {item['label']}")
    return "\n".join(lines)


def calibration_table(summary: dict[str, Any]) -> str:
    """Confidence against accuracy, and the scores of the probabilities, of either view."""
    rows = {
        "accuracy": lambda figures: f"{figures['accuracy']['fraction']:.2%}",
        "mean confidence": lambda figures: f"{figures['mean_confidence']:.2%}",
        "expected calibration error": lambda figures: f"{figures['expected_calibration_error']:.2%}",
        "negative log-likelihood (nats)": lambda figures: f"{figures['negative_log_likelihood']:.4f}",
        "Brier score (0 to 2)": lambda figures: f"{figures['brier_score']:.4f}",
    }
    views = evaluations_of(summary["counts"])
    lines = [f"{'calibration':32}" + "".join(f"{name:>16}" for name in views.values()) + mark_of(summary)]
    for name, text in rows.items():
        lines.append(f"{name:32}" + "".join(f"{text(summary['views'][view]):>16}" for view in views))
    return "\n".join(lines)


def mark_of(summary: dict[str, Any]) -> str:
    """What is put behind figures of another data set than CIFAR-10, else nothing."""
    return not_cifar10(summary["dataset"])


def _counting(summary: dict[str, Any]) -> dict[str, Any]:
    return summary["views"][summary["counts"]]


def _counts(summary: dict[str, Any], view: str) -> str:
    return " (counts)" if summary["counts"] == view else ""


def _by_class(summary: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Name and figures by view of each class."""
    return [
        (name, {view: figures["per_class"][name] for view, figures in summary["views"].items()})
        for name in summary["class_names"]
    ]


def _fraction(figures: dict[str, Any]) -> str:
    return f"{figures['fraction']:.2%} [{100 * figures['low']:.1f}, {100 * figures['high']:.1f}]"
