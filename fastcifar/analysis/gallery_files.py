"""Writes a run's galleries and Grad-CAM into a folder: figures, and the same facts as JSON."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastcifar.analysis import galleries
from fastcifar.analysis.evaluation import Evaluation, figure_title
from fastcifar.analysis.figure_files import save_figure
from fastcifar.analysis.galleries import Answer
from fastcifar.analysis.gallery_figures import failures_figure, gallery_figure, grad_cam_figure
from fastcifar.analysis.grad_cam import GradCam, grad_cam
from fastcifar.files import write_json
from fastcifar.runs.load import TrainedRun
from fastcifar.runtime.progress import progress

GALLERIES_NAME = "galleries.json"


@dataclass(frozen=True, slots=True)
class Explained:
    """Answers with their heat for the predicted class and for the true class."""

    answers: list[Answer]
    predicted: GradCam
    true: GradCam


def explain(trained: TrainedRun, images: np.ndarray, answers: list[Answer], layer: str | None = None) -> Explained:
    """Grad-CAM of `answers`, which index `images`, uint8 (n, 32, 32, 3); single view, in float32.

    `layer` and errors as in `grad_cam`.
    """
    rows = np.array([answer.index for answer in answers], dtype=np.int64)
    tensors = trained.transform()(images, rows, rows, 0)
    heats = [
        grad_cam(trained.model, tensors, torch.tensor(classes, dtype=torch.int64), layer)
        for classes in ([answer.prediction for answer in answers], [answer.label for answer in answers])
    ]
    return Explained(answers, *heats)


def write_galleries(
    trained: TrainedRun, evaluation: Evaluation, images: np.ndarray, folder: Path, layer: str | None = None
) -> list[Path]:
    """Writes five PNGs and `galleries.json` into `folder`, each atomically; returns their paths.

    `images`: the test set that was evaluated, uint8 (n, 32, 32, 3). Shows progress on standard error.
    """
    logits, labels, names = evaluation.primary_logits, evaluation.labels, evaluation.class_names
    explained = {
        "wrong": explain(trained, images, galleries.most_confidently_wrong(logits, labels), layer),
        "correct": explain(trained, images, galleries.most_confidently_correct(logits, labels), layer),
    }
    failures = galleries.failures_by_class(logits, labels)
    title = figure_title(evaluation, "Most confident mistakes of each true class, with the predicted class")
    figures = {"gallery-classes.png": failures_figure(failures, images, names, title)}
    for kind, item in explained.items():
        title = figure_title(evaluation, f"Most confidently {kind}")
        figures[f"gallery-{kind}.png"] = gallery_figure(item.answers, images, names, title)
        title = figure_title(evaluation, f"Grad-CAM at {item.predicted.layer}, most confidently {kind}")
        title += "; heat from a single view" if evaluation.primary != "single_view" else ""
        predicted, true = (cam.relative(images.shape[1]).numpy() for cam in (item.predicted, item.true))
        figures[f"grad-cam-{kind}.png"] = grad_cam_figure(item.answers, images, predicted, true, names, title)
    paths: list[Path] = []
    with progress("galleries", len(figures), "figures") as bar:
        for name, figure in figures.items():
            paths.append(save_figure(figure, folder / name))
            bar.update(len(paths))
    facts: dict[str, Any] = {
        "dataset": evaluation.dataset,
        "primary_metric": evaluation.primary,
        **{kind: galleries.as_rows(item.answers, names) for kind, item in explained.items()},
        "failures_by_class": {name: galleries.as_rows(some, names) for name, some in zip(names, failures, strict=True)},
        "grad_cam": {kind: _heat_facts(item) for kind, item in explained.items()},
    }
    write_json(folder / GALLERIES_NAME, facts)
    return [*paths, folder / GALLERIES_NAME]


def _heat_facts(item: Explained) -> dict[str, Any]:
    """Layer, size of its feature maps, padding, and the largest heat of each answer in the layer's units."""
    cams = {"predicted": item.predicted, "true": item.true}
    return {
        "layer": item.predicted.layer,
        "feature_map_size": list(item.predicted.heat.shape[1:]),
        "padding": item.predicted.padding,
        "largest_heat": {kind: [float(heat.max()) for heat in cam.heat] for kind, cam in cams.items()},
    }
