"""The plots of the report, one for each result file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bench.published import FIGURES, cut_of
from fastcifar.evaluation import title_of
from fastcifar.files import atomic_path

OURS, FFCV, TORCHVISION, NUMPY = "#1f77b4", "#ff7f0e", "#888888", "#bbbbbb"
PARTS = {
    "data_s": ("waiting for data", "#d62728"),
    "step_s": ("step", "#1f77b4"),
    "evaluation_s": ("evaluation", "#bbbbbb"),
}


def draw(result: dict[str, Any], target: Path) -> None:
    """Writes the plot of a result as PNG."""
    with atomic_path(target) as temporary:
        DRAWN[result["what"]](result).savefig(temporary, format="png", metadata={"Software": None})


def place_of(result: dict[str, Any]) -> str:
    """The machine, for titles: the GPU, or the CPU and the number of threads."""
    hardware = result["hardware"]
    return hardware.get("gpu") or f"{hardware['cpu']}, {_threads(hardware['threads'])}"


def spread(summaries: list[dict[str, float]]) -> np.ndarray:
    """Error bars from the median to the smallest and the largest value, (2, n)."""
    return np.array([[s["median"] - s["min"] for s in summaries], [s["max"] - s["median"] for s in summaries]])


def figure(width: float, height: float) -> Figure:
    """An empty figure in the report's style."""
    return Figure(figsize=(width, height), layout="constrained", dpi=130)


def _loaders(result: dict[str, Any]) -> Figure:
    names = sorted(result["candidates"], key=lambda name: result["candidates"][name]["images_per_s"]["median"])
    rates = [result["candidates"][name]["images_per_s"] for name in names]
    medians = np.array([rate["median"] for rate in rates])
    drawn = figure(9, 1.4 + 0.32 * len(names))
    axis = drawn.subplots()
    axis.barh(names, medians, xerr=spread(rates), color=[_family(name) for name in names], capsize=3)
    for y, rate in enumerate(rates):
        axis.annotate(f"{rate['median']:,.0f}", (rate["max"], y), (6, 0), textcoords="offset points", va="center")
    axis.set_xscale("log")
    axis.set_xlim(medians.min() / 3, max(rate["max"] for rate in rates) * 4)
    axis.set_xlabel("augmented images per second (log scale; bars: median, whiskers: minimum and maximum)")
    axis.set_title(f"Loaders, batch {result['batch_size']}, n = {result['n']}\n{place_of(result)}", fontsize=11)
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    return drawn


def _family(name: str) -> str:
    if name.startswith(("resident", "stream")):
        return OURS
    return FFCV if name.startswith("ffcv") else TORCHVISION if name.startswith("torchvision") else NUMPY


def _kernels(result: dict[str, Any]) -> Figure:
    cases = result["cases"]
    dtypes = list(dict.fromkeys(case["dtype"] for case in cases))
    drawn = figure(1 + 3.7 * len(dtypes), 4.6)
    axes = drawn.subplots(1, len(dtypes), sharey=True, squeeze=False)[0]
    for axis, dtype in zip(axes, dtypes, strict=True):
        _bandwidths(axis, [case for case in cases if case["dtype"] == dtype])
        axis.set_title(dtype, fontsize=11)
        axis.set_xlabel("images per call (log scale)")
    axes[0].set_ylabel("bytes read and written, GB/s")
    handles, labels = axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    drawn.suptitle(f"Augmentation kernel and memory copy, n = {result['n']}; {place_of(result)}", fontsize=11)
    return drawn


def _bandwidths(axis: Any, cases: list[dict[str, Any]]) -> None:
    colours = dict(zip(sorted({case["threads"] for case in cases}), ("#2ca02c", "#1f77b4"), strict=False))
    outputs = list(dict.fromkeys(case["output"] for case in cases))
    styles = dict(zip(outputs, ("--", "-") if len(outputs) > 1 else ("-",), strict=True))
    for threads, colour in colours.items():
        for output in outputs:
            line = [case for case in cases if (case["threads"], case["output"]) == (threads, output)]
            label = f"kernel, output {output}, {_threads(threads)}"
            _line(axis, line, "gb_per_s", label=label, color=colour, linestyle=styles[output], marker="o")
        last = [case for case in cases if (case["threads"], case["output"]) == (threads, outputs[-1])]
        label = f"copy, {_threads(threads)}"
        _line(axis, last, "copy_gb_per_s", label=label, color=colour, linestyle=":", marker="", alpha=0.8)
    axis.set_xscale("log")
    axis.set_ylim(0, None)
    axis.grid(alpha=0.3)


def _threads(count: int) -> str:
    return f"{count} thread" if count == 1 else f"{count} threads"


def _line(axis: Any, cases: list[dict[str, Any]], key: str, **style: Any) -> None:
    values = [case[key] for case in cases]
    medians = [value["median"] for value in values]
    axis.errorbar([case["batch"] for case in cases], medians, yerr=spread(values), capsize=3, markersize=4, **style)


def _epochs(result: dict[str, Any]) -> Figure:
    stages = result["stages"]
    names = list(stages)
    drawn = figure(9, 1.9 + 0.42 * len(names))
    axis = drawn.subplots()
    left = np.zeros(len(names))
    for key, (label, colour) in PARTS.items():
        seconds = np.array([stages[name][key]["median"] for name in names])
        axis.barh(names, seconds, left=left, color=colour, label=label)
        left += seconds
    whole = [stages[name]["epoch_s"] for name in names]
    axis.errorbar([w["median"] for w in whole], names, xerr=spread(whole), fmt="none", color="black", capsize=3)
    for y, name in enumerate(names):
        text = f"{whole[y]['median']:.3g} s  ({stages[name]['speedup_over_first']['median']:.2f}x)"
        axis.annotate(text, (max(whole[y]["max"], left[y]), y), (6, 0), textcoords="offset points", va="center")
    axis.set_xlim(0, 1.25 * max(w["max"] for w in whole))
    axis.invert_yaxis()
    first = stages[names[0]]
    axis.set_xlabel(f"seconds for {first['images']:,} training and {first['test_images']:,} test images")
    network = f"{result['network']}, width {result['width']}, batch {result['batch_size']}, AMP {result['amp']}"
    axis.set_title(f"Training epochs: {network}, n = {result['n']}\n{place_of(result)}", fontsize=11)
    drawn.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    return drawn


def _time_to_accuracy(result: dict[str, Any]) -> Figure:
    drawn = figure(7, 4.2)
    axis = drawn.subplots()
    metric = result["primary_metric"]
    for run in result["runs"]:
        point = run["clock"]["run_s"], 100 * run[metric]
        axis.plot(*point, "o", color=OURS, alpha=0.7)
        axis.annotate(f"seed {run['seed']}", point, (6, 4), textcoords="offset points")
    mean = 100 * result["mean"]
    axis.axhline(mean, color="#d62728", linewidth=1, label="mean")
    if result["ci95"] is not None:
        half = 100 * result["ci95"]
        axis.axhspan(mean - half, mean + half, color="#d62728", alpha=0.12, label="95% interval of the mean")
    axis.axhline(
        100 * result["target"], color="black", linestyle="--", linewidth=1, label=f"target {result['target']:.0%}"
    )
    axis.margins(x=0.25, y=0.25)
    axis.set_xlabel("run clock, s (from opening the data to the test accuracy)")
    evaluation = title_of(result["runs"][0]["evaluation"])
    axis.set_ylabel(f"test accuracy, {evaluation}, %")
    axis.set_title(f"{result['recipe']}, n = {result['n']}\n{place_of(result)}", fontsize=11)
    axis.legend(fontsize=9)
    axis.grid(alpha=0.3)
    return drawn


def _reproduce(result: dict[str, Any]) -> Figure:
    names = list(result["systems"])
    drawn = figure(9, 1.7 + 0.75 * len(names))
    axes = drawn.subplots(1, 2, sharey=True)
    for axis, key in zip(axes, ("test_accuracy", "epoch_1_test_accuracy"), strict=True):
        axis.set_title(f"{FIGURES[key]} accuracy, %" if key == "test_accuracy" else f"{FIGURES[key]}, %", fontsize=11)
        for y, name in enumerate(names):
            one = result["systems"][name]
            ours = one["ours"][key]
            bars = ((one["published"][key], -0.2, TORCHVISION), (ours and ours["mean"], 0.2, OURS))
            for value, offset, colour in bars:
                if value is not None:
                    axis.barh(y + offset, 100 * value, 0.36, color=colour)
                text = "none" if value is None else f"{100 * value:.2f}"
                axis.annotate(text, (100 * (value or 0), y + offset), (4, 0), textcoords="offset points", va="center")
        axis.set_xlim(0, 115)
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
    axes[0].set_yticks(range(len(names)), [f"{name}\n{cut_of(result, name)}" for name in names])
    axes[0].set_ylim(len(names) - 0.5, -0.5)  # fixed, because a missing bar does not extend the axis
    handles = [Patch(color=TORCHVISION, label="published"), Patch(color=OURS, label="ours, after the last step")]
    drawn.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    drawn.suptitle(f"The five published systems, n = {result['n']}; {place_of(result)}", fontsize=11)
    return drawn


DRAWN: dict[str, Callable[[dict[str, Any]], Figure]] = {
    "loaders": _loaders,
    "kernels": _kernels,
    "epochs": _epochs,
    "time_to_accuracy": _time_to_accuracy,
    "reproduce": _reproduce,
}
