"""An evaluation in a folder: its summary as JSON, two figures as PNG; its logits, to evaluate only once."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file

from fastcifar.analysis.evaluation import EVALUATION_NAME, Evaluation, evaluate_run, figure_title
from fastcifar.analysis.evaluation_figures import (
    CONFUSION_NAME,
    RELIABILITY_NAME,
    confusion_figure,
    reliability_figure,
)
from fastcifar.analysis.figure_files import save_figure
from fastcifar.analysis.metrics import confusion_matrix, reliability
from fastcifar.files import write_json
from fastcifar.runs.load import TrainedRun
from fastcifar.runs.record import save_tensors

LOGITS_NAME = "logits.safetensors"


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


def kept_evaluation(trained: TrainedRun, data: Path) -> Evaluation:
    """The evaluation of a run on the data of its training, read from its folder, or made and kept there.

    Raises what `evaluate_run` does, and OSError.
    """
    path = trained.folder / LOGITS_NAME
    with suppress(OSError, SafetensorError, KeyError):  # there is none yet, or it is damaged
        logits = load_file(path)
        labels, record = logits.pop("labels"), trained.record
        return Evaluation(trained.class_names, record["dataset"], record["evaluation"], labels, logits)
    evaluation = evaluate_run(trained, data)
    arrays = {"labels": evaluation.labels, **evaluation.logits}
    save_tensors(path, {name: torch.from_numpy(array) for name, array in arrays.items()})
    return evaluation
