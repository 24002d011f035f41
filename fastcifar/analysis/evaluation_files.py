"""Writes an evaluation to a folder: its summary as JSON, two figures as PNG."""

from pathlib import Path
from typing import Any

from fastcifar.analysis.evaluation import EVALUATION_NAME, Evaluation, figure_title
from fastcifar.analysis.evaluation_figures import (
    CONFUSION_NAME,
    RELIABILITY_NAME,
    confusion_figure,
    reliability_figure,
)
from fastcifar.analysis.figure_files import save_figure
from fastcifar.analysis.metrics import confusion_matrix, reliability
from fastcifar.files import write_json


def write_evaluation(evaluation: Evaluation, summary: dict[str, Any], folder: Path) -> list[Path]:
    """Writes `summary` and the figures of the primary metric; returns the paths. Raises OSError."""
    logits, labels = evaluation.primary_logits, evaluation.labels
    confusions = confusion_figure(
        confusion_matrix(logits, labels), evaluation.class_names, figure_title(evaluation, "Confusion matrix")
    )
    calibration = reliability_figure(reliability(logits, labels), figure_title(evaluation, "Calibration"))
    write_json(folder / EVALUATION_NAME, summary)
    return [
        folder / EVALUATION_NAME,
        save_figure(confusions, folder / CONFUSION_NAME),
        save_figure(calibration, folder / RELIABILITY_NAME),
    ]
