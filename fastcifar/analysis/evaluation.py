"""A finished run's answers on the whole test set, and what they come to: accuracy, confusions, calibration."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastcifar.analysis import metrics as classification
from fastcifar.config import EVALUATION_NAMES, evaluations_of
from fastcifar.data.prepared import load_manifest
from fastcifar.errors import UserError
from fastcifar.runtime.progress import progress

if TYPE_CHECKING:
    from torch import Tensor

    from fastcifar.loader.base import Loader
    from fastcifar.runs.load import TrainedRun
    from fastcifar.runtime.progress import Progress

EVALUATION_NAME = "evaluation.json"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Logits float32 (n, classes) by view and labels int64 (n,), in the order of the test set.

    Those of several views are means: sums have the same largest class, but are larger than the network means them, so
    their probabilities would be too sure. `counts` is the view that the recipe had chosen beforehand. `dataset`:
    "cifar10", "synthetic" or "custom".
    """

    class_names: list[str]
    dataset: str
    counts: str
    labels: np.ndarray
    logits: dict[str, np.ndarray]

    @property
    def primary_logits(self) -> np.ndarray:
        """Those of the view that counts."""
        return self.logits[self.counts]


def evaluate_run(trained: "TrainedRun", data: Path | None = None) -> Evaluation:
    """The network's answers, on the GPU where there is one; shows progress on standard error.

    `data` is the prepared folder, by default the run's own. Raises UserError where its data is missing or damaged, or
    has other classes than the run was trained on.
    """
    from fastcifar.loader import LoaderOptions, open_loader
    from fastcifar.models.build import use_kernels
    from fastcifar.runtime.device import select_runtime
    from fastcifar.runtime.threads import apply_threads
    from fastcifar.training.evaluation import predict_logits, predict_tta

    folder = trained.config.data if data is None else data
    dataset = _checked_dataset(trained, folder)
    # float16 may be more than this machine has
    kernels = "auto" if trained.config.cpu_kernels == "winograd-fp16" else trained.config.cpu_kernels
    config = replace(trained.config, device="auto", cpu_kernels=kernels)
    runtime = select_runtime(config)
    model = trained.model.to(runtime.device)
    use_kernels(model, runtime.cpu_kernels)
    with (
        apply_threads(runtime),
        open_loader(
            "resident",
            folder,
            "test",
            trained.transform(runtime.dtype),
            LoaderOptions(
                batch_size=config.evaluation_batch_size, seed=0, shuffle=False, drop_last=False, device=runtime.device
            ),
        ) as loader,
        progress("evaluation", 2 * loader.samples, "views") as bar,
    ):
        plain, labels = predict_logits(model, _watched(loader, bar, 0), runtime)
        counts = trained.record.get("evaluation", "single_view")
        _, kind = evaluations_of(counts)
        more = predict_tta(model, _watched(loader, bar, loader.samples), runtime, kind, plain)
    return Evaluation(
        class_names=list(trained.class_names),
        dataset=dataset,
        counts=counts,
        labels=labels.numpy(),
        logits={"single_view": plain.numpy(), kind: more.numpy()},
    )


def summarise(evaluation: Evaluation) -> dict[str, Any]:
    """All figures as JSON holds them; fractions in 0..1, likelihoods in nats, by view under "views".

    "per_class" is in the order of the labels, as are rows (true) and columns (predicted) of "confusion_matrix".
    """
    return {
        "dataset": evaluation.dataset,
        "samples": len(evaluation.labels),
        "class_names": evaluation.class_names,
        "counts": evaluation.counts,
        "views": {view: _summarise_view(logits, evaluation) for view, logits in evaluation.logits.items()},
    }


def title_of(evaluation: Evaluation, what: str) -> str:
    """An image's title: `what`, of which data, by which view."""
    data = {"cifar10": "CIFAR-10", "synthetic": "synthetic data"}.get(evaluation.dataset, f"{evaluation.dataset} data")
    return f"{what}: {data}, {EVALUATION_NAMES[evaluation.counts]}"


def _summarise_view(logits: np.ndarray, evaluation: Evaluation) -> dict[str, Any]:
    labels, names = evaluation.labels, evaluation.class_names
    matrix = classification.confusion_matrix(logits, labels)
    bins = classification.reliability(logits, labels)
    per_class = classification.accuracy_per_class(logits, labels)
    return {
        "accuracy": asdict(classification.accuracy(logits, labels)),
        "mean_confidence": float(classification.probabilities(logits).max(1).mean()),
        "expected_calibration_error": classification.expected_calibration_error(bins),
        "negative_log_likelihood": classification.negative_log_likelihood(logits, labels),
        "brier_score": classification.brier_score(logits, labels),
        "per_class": {name: asdict(figures) for name, figures in zip(names, per_class, strict=True)},
        "confusion_matrix": matrix.tolist(),
        "top_confusions": [
            asdict(item) | {"label": names[item.label], "prediction": names[item.prediction]}
            for item in classification.top_confusions(matrix)
        ],
        "reliability": [asdict(item) for item in bins],
    }


def _checked_dataset(trained: "TrainedRun", folder: Path) -> str:
    manifest = load_manifest(folder)
    if list(manifest.class_names) != trained.class_names:
        raise UserError(
            f"{folder} has the classes {', '.join(manifest.class_names)}, the run was trained on "
            f"{', '.join(trained.class_names)}; name the right data with --data"
        )
    return manifest.dataset


def _watched(loader: "Loader", bar: "Progress", before: int) -> "Iterator[tuple[Tensor, Tensor]]":
    done = before
    for images, labels in loader.epoch(0):
        yield images, labels
        done += len(labels)
        bar.update(done)
