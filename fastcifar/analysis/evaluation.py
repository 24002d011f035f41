"""Evaluates a finished run on the whole test set: logits, accuracy, confusions, calibration."""

import copy
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fastcifar.analysis import metrics
from fastcifar.augment.transform_torch import TorchTransform
from fastcifar.config.registry import EVALUATIONS
from fastcifar.data.prepared import load_manifest
from fastcifar.errors import UserError
from fastcifar.evaluation import SINGLE_VIEW, title_of, tta_of
from fastcifar.evaluation.logits import evaluate_logits, predict_logits, predictor
from fastcifar.loader import LoaderOptions, open_loader
from fastcifar.loader.base import Loader
from fastcifar.models.build import use_kernels
from fastcifar.runs.load import TrainedRun
from fastcifar.runtime.device import Runtime, select_runtime, supports
from fastcifar.runtime.progress import Progress, progress
from fastcifar.runtime.threads import apply_threads

EVALUATION_NAME = "evaluation.json"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Logits float32 (n, classes) by kind of evaluation, and labels int64 (n,), in the order of the test set.

    Logits of several views are averaged, not summed: sums predict the same class, but with too high a confidence.
    `primary`: the kind of evaluation that the recipe fixed before the run, whose accuracy is the primary metric.
    `dataset`: "cifar10", "synthetic" or "custom".
    """

    class_names: list[str]
    dataset: str
    primary: str
    labels: np.ndarray
    logits: dict[str, np.ndarray]

    @property
    def accuracy(self) -> float:
        """The primary metric, in 0..1."""
        return float((self.primary_logits.argmax(1) == self.labels).mean())

    @property
    def primary_logits(self) -> np.ndarray:
        """Logits that the primary metric is computed from."""
        return self.logits[self.primary]


def evaluate_run(trained: TrainedRun, data: Path | None = None) -> Evaluation:
    """Evaluates a run by single view and TTA, on the GPU if there is one; shows progress on standard error.

    `data` is the prepared folder, by default the run's own. Raises UserError if its data is missing, damaged or has
    other classes than the run was trained on.
    """
    config = trained.config
    folder = config.data if data is None else data
    dataset = _checked_dataset(trained, folder)
    kernels: Any = config.cpu_kernels if supports(config.cpu_kernels) else "auto"  # of the machine that trained it
    runtime = select_runtime(replace(config, device="auto", cpu_kernels=kernels))
    model = copy.deepcopy(trained.model).to(runtime.device)  # the caller's keeps its device and its kernels
    use_kernels(model, runtime.cpu_kernels)
    second, predict = tta_of(config.evaluation), predictor(model, runtime)
    with (
        apply_threads(runtime),
        _open_test_set(trained, folder, runtime) as loader,
        progress("evaluation", 2 * loader.samples, "views") as bar,
    ):
        single, labels = predict_logits(predict, _with_progress(loader, bar, 0))
        averaged = evaluate_logits(second, predict, _with_progress(loader, bar, loader.samples), single)
    return Evaluation(
        class_names=list(trained.class_names),
        dataset=dataset,
        primary=EVALUATIONS.name_of(config.evaluation),
        labels=labels.cpu().numpy(),
        logits={SINGLE_VIEW: single.cpu().numpy(), EVALUATIONS.name_of(second): averaged.cpu().numpy()},
    )


def summarise(evaluation: Evaluation) -> dict[str, Any]:
    """All metrics as JSON values, by kind of evaluation under "views"; fractions in 0..1, likelihoods in nats.

    "per_class" is ordered by label, like the rows (true class) and columns (predicted class) of "confusion_matrix".
    """
    return {
        "dataset": evaluation.dataset,
        "samples": len(evaluation.labels),
        "class_names": evaluation.class_names,
        "primary_metric": evaluation.primary,
        "views": {view: _summarise_view(logits, evaluation) for view, logits in evaluation.logits.items()},
    }


def figure_title(evaluation: Evaluation, what: str) -> str:
    """Title of a figure: `what`, the data set, the kind of evaluation."""
    data = {"cifar10": "CIFAR-10", "synthetic": "synthetic data"}.get(evaluation.dataset, f"{evaluation.dataset} data")
    return f"{what}: {data}, {title_of(evaluation.primary)}"


def _summarise_view(logits: np.ndarray, evaluation: Evaluation) -> dict[str, Any]:
    labels, names = evaluation.labels, evaluation.class_names
    matrix = metrics.confusion_matrix(logits, labels)
    bins = metrics.reliability(logits, labels)
    per_class = metrics.accuracy_per_class(logits, labels)
    return {
        "accuracy": asdict(metrics.accuracy(logits, labels)),
        "mean_confidence": float(metrics.probabilities(logits).max(1).mean()),
        "expected_calibration_error": metrics.expected_calibration_error(bins),
        "negative_log_likelihood": metrics.negative_log_likelihood(logits, labels),
        "brier_score": metrics.brier_score(logits, labels),
        "per_class": {name: asdict(accuracy) for name, accuracy in zip(names, per_class, strict=True)},
        "confusion_matrix": matrix.tolist(),
        "top_confusions": [
            {
                "label": names[label],
                "prediction": names[prediction],
                "count": count,
                "fraction": count / matrix[label].sum(),
            }
            for label, prediction, count in metrics.top_confusions(matrix)
        ],
        "reliability": [asdict(item) for item in bins],
    }


def _checked_dataset(trained: TrainedRun, folder: Path) -> str:
    manifest = load_manifest(folder)
    if list(manifest.class_names) != trained.class_names:
        raise UserError(
            f"{folder} has the classes {', '.join(manifest.class_names)}, but the run was trained on "
            f"{', '.join(trained.class_names)}; pass the data of the run with --data"
        )
    return manifest.dataset


def _open_test_set(trained: TrainedRun, folder: Path, runtime: Runtime) -> Loader:
    batch_size = trained.config.evaluation_batch_size
    options = LoaderOptions(
        batch_size=batch_size,
        seed=0,
        shuffle=False,
        drop_last=False,
        device=runtime.device,
        transform=TorchTransform if runtime.is_gpu else None,  # the same images, and nothing to compile
    )
    return open_loader("resident", folder, "test", trained.transform(runtime.dtype), options)


def _with_progress(loader: Loader, bar: Progress, done: int) -> Iterator[tuple[Tensor, Tensor]]:
    for images, labels in loader.epoch(0):
        yield images, labels
        done += len(labels)
        bar.update(done)
