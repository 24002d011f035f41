"""The charts of a report, sized so that their text stays readable on a phone."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fastcifar.analysis.curves import (
    TEST_COLOUR,
    TRAIN_COLOUR,
    Curves,
    draw_accuracy,
    draw_loss,
    draw_rates,
    group_means,
    running_mean,
)
from fastcifar.evaluation import SINGLE_VIEW, title_of

SIZE = (4.6, 3.4)
"""Inches of a chart; a phone shows it at about three quarters of that."""
RUN_COLOURS = (TRAIN_COLOUR, TEST_COLOUR, "#2ca02c", "#9467bd", "#c45f00", "#444444")
RUN_STYLES = ("-", "--", ":", "-.")


def training_charts(curves: Curves, record: dict[str, Any]) -> dict[str, Figure]:
    """Loss, accuracy, and the applied rates, of one run, by "loss", "accuracy" and "rates"; steps along the top."""
    charts = {name: _chart() for name in ("loss", "accuracy")}
    draw_loss(charts["loss"][1], curves)
    draw_accuracy(charts["accuracy"][1], curves, record)
    panels = len(curves.rates) + bool(curves.momenta)
    rates = Figure(figsize=(SIZE[0], 1.6 + 1.2 * panels), layout="constrained")
    charts["rates"] = rates, draw_rates(rates, curves)[0]
    for _, axis in charts.values():
        _add_steps(axis, curves.steps_per_epoch)
    return {name: figure for name, (figure, _) in charts.items()}


def comparison_charts(runs: dict[str, Curves]) -> tuple[Figure, Figure]:
    """Training losses (running means) and single-view test accuracies of several runs, by label."""
    (loss_figure, loss), (accuracy_figure, accuracy) = _chart(), _chart()
    for number, (label, curves) in enumerate(runs.items()):
        colour = RUN_COLOURS[number % len(RUN_COLOURS)]
        style = RUN_STYLES[number // len(RUN_COLOURS) % len(RUN_STYLES)]
        epoch = group_means(curves.epoch, curves.group)
        smooth = group_means(running_mean(curves.loss, curves.window), curves.group)
        loss.plot(epoch, smooth, style, color=colour, label=label)
        epochs, accuracies = zip(*curves.test_accuracies, strict=True)
        accuracy.plot(epochs, 100 * np.array(accuracies), style, marker="D", color=colour, markersize=4, label=label)
    loss.set_ylabel("training loss (nats)")
    loss.legend(fontsize="small", loc="upper right")
    accuracy.set_ylabel(f"test accuracy, {title_of(SINGLE_VIEW)} (%)")
    accuracy.legend(fontsize="small", loc="lower right")
    return loss_figure, accuracy_figure


def _chart() -> tuple[Figure, Any]:
    figure = Figure(figsize=SIZE, layout="constrained")
    axis = figure.subplots()
    axis.grid(alpha=0.3)
    axis.set_xlabel("epoch")
    return figure, axis


def _add_steps(axis: Any, steps_per_epoch: int) -> None:
    both_ways: tuple[Callable[[Any], Any], Callable[[Any], Any]] = (
        lambda epoch: epoch * steps_per_epoch,
        lambda step: step / steps_per_epoch,
    )
    top = axis.secondary_xaxis("top", functions=both_ways)
    top.set_xlabel("step")
    top.xaxis.set_major_locator(MaxNLocator(5, integer=True))
