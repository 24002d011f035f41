"""Plots of learning rates: range tests, the schedules of runs, and triangular cycles."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure  # not pyplot: no window system, no global state
from matplotlib.ticker import MaxNLocator

from fastcifar.analysis.cyclic import Cycles, cyclic_rates
from fastcifar.analysis.group_plots import RATE_COLOUR, draw_groups
from fastcifar.analysis.lr_range import RangeTest
from fastcifar.analysis.plan import Plan
from fastcifar.analysis.rate_tables import advice

LOSS_COLOUR, SHORT_COLOUR, GUIDE_COLOUR = "#1f77b4", "#9ecae1", "#888888"
MARK_COLOUR = "#d62728"
BEHIND_TEXT = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1}


def draw_range_test(test: RangeTest) -> Figure:
    """Loss at the end of the short trainings against their peak rate; the range found is shaded, with what to do."""
    figure, axis = _figure()
    figure.set_figheight(5.0)
    for curve, colour in ((test.short, SHORT_COLOUR), (test.long, LOSS_COLOUR)):
        losses = np.where(np.isfinite(curve.losses), curve.losses, np.nan)
        axis.plot(curve.rates, losses, "o-", color=colour, markersize=4, label=f"after {curve.steps} steps")
        axis.axvline(curve.best, color=colour, linestyle=":", label=f"lowest at {curve.best:.3g}")
    rates = test.found
    axis.axvspan(rates.minimum, rates.maximum, color=MARK_COLOUR, alpha=0.08, linewidth=0)
    label = f"found for {test.total} steps: {rates.minimum:.3g} to {rates.maximum:.3g}"
    axis.axvline(rates.maximum, color=MARK_COLOUR, linewidth=1.8, label=label)
    axis.axhline(test.short.guessing, color=GUIDE_COLOUR, linestyle="--", linewidth=1, label="guessing")
    low = float(min(test.short.losses.min(), test.long.losses.min()))
    height = test.short.guessing - low
    axis.set_ylim(low - 0.1 * height, test.short.guessing + 0.3 * height)  # the diverged would flatten the rest
    axis.set_xscale("log")
    data = "" if test.dataset == "cifar10" else f", {test.dataset} data"
    axis.set(
        xlabel=f"peak learning rate\n{advice(test)}",
        ylabel="training loss (nats)",
        title=f"Learning-rate range test of {test.recipe}{data}",
    )
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")  # beside the curves there is no room
    return figure


def draw_plan(plan: Plan) -> Figure:
    """Learning rates and momenta of each step, with epochs along the top and marks at start, peak and end."""
    panels = len(plan.rates) + bool(plan.momenta)
    figure = Figure(figsize=(7.5, 2.6 + 1.3 * panels), layout="constrained", dpi=150)
    rate, *_ = draw_groups(figure, np.arange(len(plan.epochs)), plan.rates, plan.momenta, "step")
    names: dict[tuple[float, float], list[str]] = {}
    for name, at in plan.marks.items():
        names.setdefault((at["iteration"], at["lr"]), []).append(name)
    for (step, lr), together in names.items():
        rate.plot([step], [lr], "o", color=MARK_COLOUR, markersize=5, clip_on=False, zorder=3)
        _note(rate, f"{', '.join(together)} {lr:.4g}", step, lr, rightmost=step > len(plan.epochs) / 2)
    rate.set_title(f"Schedule of {plan.recipe}")
    epochs = rate.secondary_xaxis(
        "top", functions=(lambda step: step / plan.steps_per_epoch, lambda epoch: epoch * plan.steps_per_epoch)
    )
    epochs.set_xlabel("epoch")
    epochs.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def draw_cycles(cycles: Cycles) -> Figure:
    """Learning rate of each step, with base, peak, amplitude and step size marked."""
    figure, axis = _figure()
    axis.plot(cyclic_rates(cycles), color=RATE_COLOUR)
    for name, rate in (("base", cycles.base), ("peak", cycles.peak)):
        axis.axhline(rate, color=GUIDE_COLOUR, linestyle=":", linewidth=1)
        _note(axis, f"{name} {rate:.4g}", cycles.total, rate, rightmost=True, below=name == "base")
    _measure(axis, (0, cycles.base), (cycles.step_size, cycles.base), f"step size {cycles.step_size}")
    _measure(
        axis, (cycles.step_size, cycles.base), (cycles.step_size, cycles.peak), f"amplitude {cycles.amplitude:.4g}"
    )
    axis.margins(y=0.15)
    gamma = f", gamma {cycles.gamma:g}" if cycles.kind == "exp_range" else ""
    noun = "cycle" if cycles.cycles == 1 else "cycles"
    axis.set(xlabel="step", ylabel="learning rate", title=f"{cycles.kind}, {cycles.cycles} {noun}{gamma}")
    return figure


def _figure() -> tuple[Figure, Any]:
    figure = Figure(figsize=(7.5, 4.2), layout="constrained", dpi=150)
    axis = figure.subplots()
    axis.grid(alpha=0.3)
    return figure, axis


def _note(axis: Any, text: str, x: float, y: float, *, rightmost: bool, below: bool = False) -> None:
    axis.annotate(
        text,
        (x, y),
        xytext=(-6 if rightmost else 6, -12 if below else 5),
        textcoords="offset points",
        ha="right" if rightmost else "left",
        fontsize="small",
        bbox=BEHIND_TEXT,
    )


def _measure(axis: Any, begin: tuple[float, float], end: tuple[float, float], text: str) -> None:
    """Draws a two-headed arrow with its length beside it."""
    axis.annotate(
        "", begin, xytext=end, arrowprops={"arrowstyle": "<->", "color": GUIDE_COLOUR, "shrinkA": 0, "shrinkB": 0}
    )
    level = begin[1] == end[1]
    axis.annotate(
        text,
        ((begin[0] + end[0]) / 2, (begin[1] + end[1]) / 2),
        xytext=(0, -14) if level else (5, 0),
        textcoords="offset points",
        ha="center" if level else "left",
        color=GUIDE_COLOUR,
        fontsize="small",
        bbox=BEHIND_TEXT,
    )
