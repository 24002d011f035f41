"""The charts of a report: what a run's steps and epochs measured, of one run or several, large enough for a phone."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastcifar.analysis.curves import RATE_COLOUR, TEST_COLOUR, TRAIN_COLOUR, read_metrics, running_mean
from fastcifar.errors import UserError
from fastcifar.runs.record import METRICS_NAME

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = (4.6, 3.4)
"""Inches of a chart; on a phone it is shown at three quarters of that, and its text can still be read."""
POINTS = 1000
"""Of a line at most; longer runs are drawn as means over a few steps."""
RUN_COLOURS = (TRAIN_COLOUR, TEST_COLOUR, "#2ca02c", "#9467bd", "#c45f00", "#444444")
RUN_STYLES = ("-", "--", ":", "-.")


@dataclass(frozen=True, slots=True)
class Curves:
    """What a run measured; each array float64 (steps,), accuracies in 0..1, losses in nats."""

    steps_per_epoch: int
    at: np.ndarray
    """Epochs behind each step."""
    loss: np.ndarray
    accuracy: np.ndarray
    rate: np.ndarray
    epochs: list[dict[str, Any]]
    """The lines of the epochs, as `metrics.jsonl` holds them."""
    tests: list[tuple[float, float]]
    """Epoch and accuracy of each evaluation with one view, the last one at the end of the run."""
    test_losses: list[tuple[float, float]]
    """The same of the loss, where it is known."""

    @property
    def group(self) -> int:
        """Steps that are drawn as one point."""
        return math.ceil(len(self.at) / POINTS)

    @property
    def window(self) -> int:
        """Steps of the running mean."""
        return max(1, len(self.at) // 50)


def read_curves(folder: Path, record: dict[str, Any], test_loss: float | None = None) -> Curves:
    """The curves of a finished run; raises UserError where its metrics are missing or damaged.

    `test_loss` is that of the end, which neither its metrics nor its record know.
    """
    steps, epochs = read_metrics(folder)
    try:
        last = steps[-1]
        per_epoch = last["step"] / last["epoch"] if last["epoch"] else len(steps) / record["epochs"]
        at, loss, accuracy, rate = (
            np.array([step[key] for step in steps], dtype=float) for key in ("epoch", "loss", "train_accuracy", "lr")
        )
        epochs[-1] |= {"test_accuracy": record["test_accuracy"], "test_loss": test_loss}  # the metrics lack the end
        tests, losses = (
            [(min(e["epoch"], record["epochs"]), e[key]) for e in epochs if e.get(key) is not None]
            for key in ("test_accuracy", "test_loss")
        )
        return Curves(max(1, round(per_epoch)), at, loss, accuracy, rate, epochs, tests, losses)
    except (KeyError, TypeError, ValueError, ArithmeticError, IndexError) as error:
        raise UserError(f"{folder / METRICS_NAME} is not what a run writes: {error!r}; train again") from None


def loss_chart(curves: Curves) -> "Figure":
    """Training loss of the steps, their running mean, the epochs' means; the test loss where it is known."""
    figure, axis = _chart(curves, "cross-entropy (nats)")
    _steps(axis, curves, curves.loss)
    _epochs(axis, curves, [epoch["loss"] for epoch in curves.epochs])
    if curves.test_losses:
        at, losses = zip(*curves.test_losses, strict=True)
        axis.plot(at, losses, "D-", color=TEST_COLOUR, markersize=4, label="test, one view")
    axis.legend(fontsize="small", loc="upper right")
    return figure


def accuracy_chart(curves: Curves, more: float, views: str) -> "Figure":
    """Training accuracy as above; test accuracy with one view where it was measured, of more `views` at the end."""
    figure, axis = _chart(curves, "accuracy (%)")
    _steps(axis, curves, 100 * curves.accuracy)
    _epochs(axis, curves, [100 * epoch["train_accuracy"] for epoch in curves.epochs])
    at, fractions = zip(*curves.tests, strict=True)
    axis.plot(at, 100 * np.array(fractions), "D-", color=TEST_COLOUR, markersize=4, label="test, one view")
    axis.plot([at[-1]], [100 * more], "*", color=TEST_COLOUR, markersize=10, label=f"test, {views}")
    axis.legend(fontsize="small", loc="lower right")
    return figure


def rate_chart(curves: Curves) -> "Figure":
    """The learning rate that every step had."""
    figure, axis = _chart(curves, "learning rate")
    axis.plot(curves.at[:: curves.group], curves.rate[:: curves.group], color=RATE_COLOUR)
    axis.set_ylim(0, None)
    return figure


def comparison_charts(runs: dict[str, Curves]) -> tuple["Figure", "Figure"]:
    """Training losses (running means) and test accuracies of several runs, by the label of each."""
    loss_figure, loss = _chart(None, "training loss (nats)")
    accuracy_figure, accuracy = _chart(None, "test accuracy, one view (%)")
    for number, (label, curves) in enumerate(runs.items()):
        colour = RUN_COLOURS[number % len(RUN_COLOURS)]
        style = RUN_STYLES[number // len(RUN_COLOURS) % len(RUN_STYLES)]
        smooth = running_mean(curves.loss, curves.window)
        loss.plot(_means(curves.at, curves.group), _means(smooth, curves.group), style, color=colour, label=label)
        at, fractions = zip(*curves.tests, strict=True)
        accuracy.plot(at, 100 * np.array(fractions), style, marker="D", color=colour, markersize=4, label=label)
    loss.legend(fontsize="small", loc="upper right")
    accuracy.legend(fontsize="small", loc="lower right")
    return loss_figure, accuracy_figure


def _chart(curves: Curves | None, label: str) -> tuple["Figure", Any]:
    """Epochs along the bottom; iterations along the top, for a single run."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=SIZE, layout="constrained")
    axis = figure.subplots()
    axis.grid(alpha=0.3)
    axis.set(xlabel="epoch", ylabel=label)
    if curves is not None:
        scale = curves.steps_per_epoch
        along: tuple[Callable[[Any], Any], Callable[[Any], Any]] = (lambda at: at * scale, lambda step: step / scale)
        top = axis.secondary_xaxis("top", functions=along)
        top.set_xlabel("iteration")
        top.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure, axis


def _steps(axis: Any, curves: Curves, values: np.ndarray) -> None:
    at, name = _means(curves.at, curves.group), "iteration" if curves.group == 1 else f"{curves.group} iterations"
    faint = {"alpha": 0.3, "linewidth": 0.7} if curves.window > 1 else {}
    axis.plot(at, _means(values, curves.group), color=TRAIN_COLOUR, label=f"train, {name}", **faint)
    if curves.window > 1:
        smooth = _means(running_mean(values, curves.window), curves.group)
        axis.plot(at, smooth, color=TRAIN_COLOUR, label=f"train, mean of {curves.window} iterations")


def _epochs(axis: Any, curves: Curves, values: list[float]) -> None:
    """An epoch's mean stands in its middle: that is where the running means pass it."""
    ends = [min(float(epoch["epoch"]), curves.tests[-1][0]) for epoch in curves.epochs]
    middles = [(begin + end) / 2 for begin, end in zip([0.0, *ends[:-1]], ends, strict=True)]
    axis.plot(middles, values, "o", color=TRAIN_COLOUR, markersize=4, label="train, epoch")


def _means(values: np.ndarray, group: int) -> np.ndarray:
    """Means over every `group` values in a row; the last ones may be fewer."""
    starts = np.arange(0, len(values), group)
    return np.add.reduceat(values, starts) / np.diff(starts, append=len(values))
