"""Galleries and Grad-CAM of a run as files in a folder: images, and the same facts as JSON."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastcifar.analysis.evaluation import Evaluation, title_of
from fastcifar.analysis.figure_files import save_figure
from fastcifar.analysis.galleries import (
    Answer,
    as_rows,
    failures_by_class,
    most_confidently_correct,
    most_confidently_wrong,
)
from fastcifar.analysis.gallery_figures import failures_figure, gallery_figure, grad_cam_figure
from fastcifar.files import write_json
from fastcifar.runtime.progress import progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastcifar.analysis.grad_cam import GradCam
    from fastcifar.runs.load import TrainedRun

GALLERIES_NAME = "galleries.json"


@dataclass(frozen=True, slots=True)
class Explained:
    """Answers of a gallery with their heat: for the class that was predicted and for the true one."""

    answers: list[Answer]
    predicted: "GradCam"
    true: "GradCam"


def explain(trained: "TrainedRun", images: np.ndarray, answers: list[Answer], layer: str | None = None) -> Explained:
    """Grad-CAM of `answers`, which index `images`, uint8 (n, 32, 32, 3); of one view, in float32.

    `layer` as in `grad_cam`. Raises UserError as there.
    """
    import torch

    from fastcifar.analysis.grad_cam import grad_cam

    rows = np.array([answer.index for answer in answers], dtype=np.int64)
    tensors = trained.transform()(images, rows, rows, 0)
    heats = [
        grad_cam(trained.model, tensors, torch.tensor(classes, dtype=torch.int64), layer)
        for classes in ([answer.prediction for answer in answers], [answer.label for answer in answers])
    ]
    return Explained(answers, *heats)


def write_galleries(
    trained: "TrainedRun", evaluation: Evaluation, images: np.ndarray, folder: Path, layer: str | None = None
) -> list[Path]:
    """Five PNGs and `galleries.json` in `folder`, each atomically; returns their paths.

    `images`: the test set that was evaluated, uint8 (n, 32, 32, 3). Shows progress on standard error.
    """
    logits, labels, names = evaluation.primary_logits, evaluation.labels, evaluation.class_names
    wrong, right = most_confidently_wrong(logits, labels), most_confidently_correct(logits, labels)
    failures = failures_by_class(logits, labels)
    explained = {"wrong": explain(trained, images, wrong, layer), "right": explain(trained, images, right, layer)}
    paths: list[Path] = []
    with progress("galleries", 5, "images") as bar:

        def save(name: str, figure: "Figure") -> None:
            paths.append(save_figure(figure, folder / name))
            bar.update(len(paths))

        for kind, answers in (("wrong", wrong), ("right", right)):
            title = title_of(evaluation, f"Most confidently {kind}")
            save(f"gallery-{kind}.png", gallery_figure(answers, images, names, title))
        title = title_of(evaluation, "Most confident mistakes of each class")
        save("gallery-classes.png", failures_figure(failures, images, names, title))
        for kind, item in explained.items():
            predicted, true = (cam.relative(images.shape[1]).numpy() for cam in (item.predicted, item.true))
            title = title_of(evaluation, f"Grad-CAM at {item.predicted.layer}, most confidently {kind}")
            title += "; heat of one view" if evaluation.counts != "single_view" else ""
            save(f"grad-cam-{kind}.png", grad_cam_figure(item.answers, images, predicted, true, names, title))
    facts: dict[str, Any] = {
        "dataset": evaluation.dataset,
        "view": evaluation.counts,
        "wrong": as_rows(wrong, names),
        "right": as_rows(right, names),
        "failures_by_class": {name: as_rows(some, names) for name, some in zip(names, failures, strict=True)},
        "grad_cam": {kind: _heat_facts(item) for kind, item in explained.items()},
    }
    write_json(folder / GALLERIES_NAME, facts)
    return [*paths, folder / GALLERIES_NAME]


def _heat_facts(item: Explained) -> dict[str, Any]:
    """The layer, the side of its maps, and each answer's largest heat, in the layer's units."""
    cams = {"predicted": item.predicted, "true": item.true}
    return {
        "layer": item.predicted.layer,
        "map": list(item.predicted.heat.shape[1:]),
        "margin": item.predicted.margin,
        "largest_heat": {kind: [float(heat.max()) for heat in cam.heat] for kind, cam in cams.items()},
    }
