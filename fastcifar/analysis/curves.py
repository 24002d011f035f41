"""A run's curves as one image: loss, accuracy and learning rate against epochs."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from fastcifar.config import evaluations_of
from fastcifar.errors import UserError
from fastcifar.files import atomic_path
from fastcifar.runs.record import METRICS_NAME, load_record

CURVES_NAME = "curves.png"
TRAIN_COLOUR, TEST_COLOUR, RATE_COLOUR = "#1f77b4", "#d62728", "#444444"


def read_metrics(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The lines of a run's steps and of its epochs, in order; raises UserError where there are none."""
    path = folder / METRICS_NAME
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    steps = [line for line in lines if line["kind"] == "step"]
    if not steps:
        raise UserError(f"{path} holds no step")
    return steps, [line for line in lines if line["kind"] == "epoch"]


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean over the last `window` values (fewer at the start), float64 (n,)."""
    sums = np.concatenate(([0.0], np.cumsum(values)))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (sums[ends] - sums[starts]) / (ends - starts)


def draw_curves(folder: Path) -> Path:
    """Writes `curves.png` into the run's folder and returns its path."""
    from matplotlib.figure import Figure  # not pyplot: no window system, no global state

    record = load_record(folder)
    steps, epochs = read_metrics(folder)
    at = np.array([step["epoch"] for step in steps])
    window = max(1, len(steps) // 50)
    figure = Figure(figsize=(11, 3.4), layout="constrained", dpi=150)
    loss, accuracy, rate = figure.subplots(1, 3)
    _line(loss, at, np.array([step["loss"] for step in steps]), window)
    loss.set(title="Training loss", ylabel="cross-entropy (nats)")
    _line(accuracy, at, 100 * np.array([step["train_accuracy"] for step in steps]), window)
    tested = [(epoch["epoch"], 100 * epoch["test_accuracy"]) for epoch in epochs if "test_accuracy" in epoch]
    tested.append((record["epochs"], 100 * record["test_accuracy"]))
    accuracy.plot(*zip(*tested, strict=True), "o-", color=TEST_COLOUR, label="test, one view", markersize=4)
    _, more = evaluations_of(record["evaluation"]).values()
    last = 100 * record["test_accuracy_tta"]
    accuracy.plot([record["epochs"]], [last], "*", color=TEST_COLOUR, label=f"test, {more}", markersize=10)
    accuracy.set(title="Accuracy", ylabel="%")
    accuracy.legend(loc="lower right")
    rate.plot(at, [step["lr"] for step in steps], color=RATE_COLOUR)
    rate.set(title="Learning rate", ylim=(0, None))
    for axis in (loss, accuracy, rate):
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
    figure.suptitle(_title(record))
    with atomic_path(folder / CURVES_NAME) as temporary:
        figure.savefig(temporary, format="png")
    return folder / CURVES_NAME


def _line(axis: Any, at: np.ndarray, values: np.ndarray, window: int) -> None:
    axis.plot(at, values, color=TRAIN_COLOUR, alpha=0.25, linewidth=0.8)
    axis.plot(at, running_mean(values, window), color=TRAIN_COLOUR, label=f"train, mean of {window} steps")


def _title(record: dict[str, Any]) -> str:
    shown = record["test_accuracy"] if record["evaluation"] == "single_view" else record["test_accuracy_tta"]
    data = "" if record["dataset"] == "cifar10" else f", {record['dataset']} data"
    where = record["hardware"].get("gpu") or record["hardware"]["cpu"]
    return (
        f"{record['recipe']}, seed {record['seed']}{data}: {shown:.2%} in {record['clock']['run_s']:.0f} s on {where}"
    )
