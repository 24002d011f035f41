"""A run's training curves, read from its metrics: loss, accuracy and learning rate against epochs."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastcifar.analysis.figure_files import save_figure
from fastcifar.analysis.group_plots import draw_groups
from fastcifar.errors import UserError
from fastcifar.evaluation import SINGLE_VIEW, evaluations_of, title_of
from fastcifar.runs.record import METRICS_NAME, load_record

CURVES_NAME = "curves.png"
TRAIN_COLOUR, TEST_COLOUR = "#1f77b4", "#d62728"
MAX_POINTS = 1000
"""Points per line; longer runs are drawn as means over a few steps."""


@dataclass(frozen=True, slots=True)
class Curves:
    """What a run measured: arrays float64 (steps,), accuracies in 0..1, losses in nats."""

    steps_per_epoch: int
    epoch: np.ndarray
    """Epochs since the start of the run at each step."""
    loss: np.ndarray
    accuracy: np.ndarray
    rates: dict[str, np.ndarray]
    """The learning rate that each parameter group was trained with."""
    momenta: dict[str, np.ndarray]
    """The momentum of each group that has one."""
    epochs: list[dict[str, Any]]
    """The epoch lines of `metrics.jsonl`."""
    test_accuracies: list[tuple[float, float]]
    """Epoch and single-view accuracy of each evaluation, including the one at the end of the run."""
    test_losses: list[tuple[float, float]]
    """Epoch and single-view loss of each evaluation with a known loss."""

    @property
    def group(self) -> int:
        """Steps that are averaged into one point."""
        return math.ceil(len(self.epoch) / MAX_POINTS)

    @property
    def window(self) -> int:
        """Steps of the running mean."""
        return max(1, len(self.epoch) // 50)


def read_metrics(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The step lines and the epoch lines of a run's metrics, in order; raises UserError if there are no steps."""
    path = folder / METRICS_NAME
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    steps = [line for line in lines if line["kind"] == "step"]
    if not steps:
        raise UserError(f"{path} holds no step")
    return steps, [line for line in lines if line["kind"] == "epoch"]


def read_curves(folder: Path, record: dict[str, Any], test_loss: float | None = None) -> Curves:
    """The curves of a finished run; raises UserError if its metrics are missing or damaged.

    `test_loss`: loss at the end of the run, which is neither in the metrics nor in the record.
    """
    steps, epochs = read_metrics(folder)
    try:
        last = steps[-1]
        per_epoch = last["step"] / last["epoch"] if last["epoch"] else len(steps) / record["epochs"]
        epoch, loss, accuracy = (
            np.array([step[key] for step in steps], dtype=float) for key in ("epoch", "loss", "train_accuracy")
        )
        rates, momenta = (
            {name: np.array([step[key][name] for step in steps], dtype=float) for name in last[key]}
            for key in ("lr", "momentum")
        )
        epochs[-1] |= {"test_accuracy": record["test_accuracy"], "test_loss": test_loss}
        tests, losses = (
            [(min(line["epoch"], record["epochs"]), line[key]) for line in epochs if line.get(key) is not None]
            for key in ("test_accuracy", "test_loss")
        )
        return Curves(max(1, round(per_epoch)), epoch, loss, accuracy, rates, momenta, epochs, tests, losses)
    except (KeyError, TypeError, ValueError, ArithmeticError, IndexError) as error:
        raise UserError(f"{folder / METRICS_NAME} is not what a run writes: {error!r}; train again") from None


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean over the last `window` values (fewer at the start), float64 (n,)."""
    sums = np.concatenate(([0.0], np.cumsum(values)))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (sums[ends] - sums[starts]) / (ends - starts)


def group_means(values: np.ndarray, group: int) -> np.ndarray:
    """Means over every `group` consecutive values; the last group may be smaller."""
    starts = np.arange(0, len(values), group)
    return np.add.reduceat(values, starts) / np.diff(starts, append=len(values))


def draw_loss(axis: Any, curves: Curves) -> None:
    """Training loss of each step, its running mean and the mean of each epoch; test loss if known."""
    _draw_steps(axis, curves, curves.loss)
    _draw_epochs(axis, curves, [epoch["loss"] for epoch in curves.epochs])
    if curves.test_losses:
        label = f"test, {title_of(SINGLE_VIEW)}"
        axis.plot(*zip(*curves.test_losses, strict=True), "D-", color=TEST_COLOUR, markersize=4, label=label)
    axis.set_ylabel("cross-entropy loss (nats)")
    axis.legend(fontsize="small", loc="upper right")


def draw_accuracy(axis: Any, curves: Curves, record: dict[str, Any]) -> None:
    """Training accuracy as in `draw_loss`; single-view test accuracy, and at the end that with TTA."""
    _draw_steps(axis, curves, 100 * curves.accuracy)
    _draw_epochs(axis, curves, [100 * epoch["train_accuracy"] for epoch in curves.epochs])
    epochs, accuracies = zip(*curves.test_accuracies, strict=True)
    single, tta = evaluations_of(record["evaluation"]).values()
    axis.plot(epochs, 100 * np.array(accuracies), "D-", color=TEST_COLOUR, markersize=4, label=f"test, {single}")
    last = 100 * record["test_accuracy_tta"]
    axis.plot([epochs[-1]], [last], "*", color=TEST_COLOUR, markersize=10, label=f"test, {tta}")
    axis.set_ylabel("accuracy (%)")
    axis.legend(fontsize="small", loc="lower right")


def draw_rates(figure: Any, curves: Curves) -> list[Any]:
    """Learning rate and momentum of each parameter group, as applied at each step; returns the axes."""
    rates, momenta = (
        {name: values[:: curves.group] for name, values in some.items()} for some in (curves.rates, curves.momenta)
    )
    return draw_groups(figure, curves.epoch[:: curves.group], rates, momenta, "epoch")


def draw_curves(folder: Path) -> Path:
    """Writes `curves.png` into the folder of a finished run and returns its path."""
    from matplotlib.figure import Figure  # not pyplot: no window system, no global state

    record = load_record(folder)
    curves = read_curves(folder, record)
    figure = Figure(figsize=(11, 3.4 + 0.5 * (len(curves.rates) - 1)), layout="constrained", dpi=150)
    parts: Any = figure.subfigures(1, 2, width_ratios=(2, 1))
    left, right = parts
    axes: Any = left.subplots(1, 2)
    loss, accuracy = axes
    draw_loss(loss, curves)
    draw_accuracy(accuracy, curves, record)
    draw_rates(right, curves)
    for axis in (loss, accuracy):
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
    figure.suptitle(_title(record))
    return save_figure(figure, folder / CURVES_NAME)


def _draw_steps(axis: Any, curves: Curves, values: np.ndarray) -> None:
    epoch = group_means(curves.epoch, curves.group)
    name = "each step" if curves.group == 1 else f"mean of {curves.group} steps"
    faint = {"alpha": 0.3, "linewidth": 0.7} if curves.window > 1 else {}
    axis.plot(epoch, group_means(values, curves.group), color=TRAIN_COLOUR, label=f"train, {name}", **faint)
    if curves.window > 1:
        smooth = group_means(running_mean(values, curves.window), curves.group)
        axis.plot(epoch, smooth, color=TRAIN_COLOUR, label=f"train, running mean of {curves.window} steps")


def _draw_epochs(axis: Any, curves: Curves, values: list[float]) -> None:
    """Draws an epoch's mean at its middle, where the running mean passes it."""
    ends = [min(float(epoch["epoch"]), curves.test_accuracies[-1][0]) for epoch in curves.epochs]
    middles = [(start + end) / 2 for start, end in zip([0.0, *ends[:-1]], ends, strict=True)]
    axis.plot(middles, values, "o", color=TRAIN_COLOUR, markersize=4, label="train, mean of the epoch")


def _title(record: dict[str, Any]) -> str:
    shown = record["test_accuracy"] if record["evaluation"] == "single_view" else record["test_accuracy_tta"]
    data = "" if record["dataset"] == "cifar10" else f", {record['dataset']} data"
    where = record["hardware"].get("gpu") or record["hardware"]["cpu"]
    seconds = f"{record['clock']['run_s']:.0f} s"
    return f"{record['recipe']}, seed {record['seed']}{data}: test accuracy {shown:.2%} in {seconds} on {where}"
