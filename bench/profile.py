"""`python -m bench profile`: where the time of a training step goes: kernels by name, launches, and gaps between them.

The steps are those of a training, with their batches and, on a GPU, their CUDA graphs. They are timed without the
profiler, which slows the host down, and then recorded by it. A gap is time in which the device has nothing to do.
"""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType  # pyright: ignore[reportPrivateImportUsage]
from torch.profiler import ProfilerActivity

from bench.measure import Table, check_out, check_runs, described, figure, finish, result_path
from bench.training import Device, recipe_config
from fastcifar.cli.parsing import parse
from fastcifar.config import Config
from fastcifar.data.prepared import load_manifest
from fastcifar.rng import Purpose, seeded
from fastcifar.runtime.device import Runtime, select_runtime
from fastcifar.runtime.threads import run_settings
from fastcifar.training.context import RunContext
from fastcifar.training.loop import training_steps
from fastcifar.training.prepared import PreparedTraining

WARM_UP = 10
"""Steps before the timed ones, so that the device's clock has risen and the host runs ahead."""
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cuGraphLaunch", "cudaMemcpy", "cudaMemset")
"""Beginnings of the names of calls that give work to a GPU."""
TOP = 20
"""Kernels listed for an image size."""
LONGEST_NAME = 160
CLOCK = "perf_counter around all steps, with the device idle before and after; kernel times from torch.profiler"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Record the kernels of training steps at every image size of a recipe."""

    recipe: str = "fast90"
    """Name of the recipe."""
    steps: int = 20
    """Steps timed, and as many recorded, at each image size."""
    data: Path = Path("data")
    """Folder of the prepared data."""
    out: Path | None = None
    """Result file, or an existing folder for it. Default: a file in bench/results/ named after the benchmark."""
    device: Device = "auto"
    """Device to train on."""
    quick: bool = False
    """A small network, one image size and two steps, to check that the benchmark works."""


def main(arguments: list[str]) -> None:
    """Measures, prints a table, writes the JSON and prints it as the last line."""
    options = parse(Options, arguments, prog="python -m bench profile")
    check_runs(options.steps)
    config = recipe_config(options.recipe, options.data, options.device, quick=options.quick)
    steps = 2 if options.quick else options.steps
    check_out(options.out)
    runtime = select_runtime(config)
    sizes = sorted({size for _, size in config.resolution})[: 1 if options.quick else None]
    result = {
        "what": "profile",
        "dataset": load_manifest(options.data).dataset,
        **described(runtime),
        "n": steps,
        "recipe": options.recipe,
        "batch_size": config.batch_size,
        "amp": str(runtime.dtype).removeprefix("torch."),
        "clock": CLOCK,
        "sizes": {str(size): profiled(config, runtime, size, steps) for size in sizes},
    }
    finish(result, table_of(result), result_path(result, options.recipe, options.out))


def profiled(config: Config, runtime: Runtime, size: int, steps: int) -> dict[str, Any]:
    """Wall, busy and gap milliseconds, launches and kernels of a step on images of `size` pixels."""
    activities = _start_profiler(runtime)
    with _steps(replace(config, resolution=((1.0, size),)), runtime, 2 * steps) as step:
        runtime.synchronise()
        start = time.perf_counter()
        for _ in range(steps):
            next(step)
        runtime.synchronise()
        wall_ms = 1e3 * (time.perf_counter() - start) / steps
        with torch.profiler.profile(activities=activities) as recorded:
            for _ in range(steps):
                next(step)
            runtime.synchronise()
    events = list(recorded.events() or [])
    return {
        "wall_ms": wall_ms,
        **_work(events, DeviceType.CUDA if len(activities) > 1 else DeviceType.CPU, steps, wall_ms),
    }


@contextmanager
def _steps(config: Config, runtime: Runtime, count: int) -> Iterator[Iterator[Any]]:
    """`count` steps of a training after its warm-up, each of which is taken by `next`."""
    per_epoch = RunContext(config, runtime).steps_per_epoch
    context = RunContext(replace(config, epochs=max(config.epochs, (WARM_UP + count) / per_epoch + 1)), runtime)
    with run_settings(runtime, deterministic=config.deterministic):
        prepared = PreparedTraining(context)
        steps = prepared.begin(context)
        with seeded(config.seed, Purpose.DROPOUT), context.open("train", prepared.storage) as loader:
            steps.start(loader)
            step = training_steps(steps, loader)
            for _ in range(WARM_UP):
                next(step)
            yield step


def _start_profiler(runtime: Runtime) -> list[ProfilerActivity]:
    """What to record. On a GPU it is started once before any graph is captured, or it may miss the graph's kernels."""
    if runtime.device.type != "cuda":
        return [ProfilerActivity.CPU]
    os.environ.update({"TEARDOWN_CUPTI": "0", "DISABLE_CUPTI_LAZY_REINIT": "1"})
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities):
        torch.zeros(1, device=runtime.device)
        runtime.synchronise()
    return activities


def _work(events: list[Any], device: DeviceType, steps: int, wall_ms: float) -> dict[str, Any]:
    """What the device did, per step; nothing but launches if the profiler has recorded no work on it."""
    work = [one for one in events if one.device_type == device and not _is_annotation(one)]
    busy_ms = busy_us((one.time_range.start, one.time_range.end) for one in work) / 1e3 / steps
    totals: dict[str, tuple[float, int]] = {}
    for one in work:
        own_us = one.self_cpu_time_total if device == DeviceType.CPU else one.time_range.elapsed_us()
        before = totals.get(one.name, (0.0, 0))
        totals[one.name] = before[0] + own_us, before[1] + 1
    by_time = sorted(totals.items(), key=lambda item: -item[1][0])
    all_us = sum(own_us for own_us, _ in totals.values())
    return {
        "busy_ms": busy_ms if work else None,
        "gap_ms": max(0.0, wall_ms - busy_ms) if work else None,
        "kernels_per_step": len(work) / steps,
        "launches_per_step": sum(one.name.startswith(LAUNCHES) for one in events) / steps,
        "kernels": [
            {
                "name": name[:LONGEST_NAME],
                "ms": own_us / 1e3 / steps,
                "per_step": count / steps,
                "share": own_us / all_us,
            }
            for name, (own_us, count) in by_time[:TOP]
        ],
    }


def _is_annotation(event: Any) -> bool:
    """Whether an event spans others, such as the range of an optimiser's step."""
    return getattr(event, "is_user_annotation", False) or event.name.startswith(("Optimizer.", "ProfilerStep"))


def busy_us(intervals: Iterable[tuple[float, float]]) -> float:
    """The length of the union of intervals."""
    total, until = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def table_of(result: dict[str, Any]) -> Table:
    """For each image size a row for the whole step, then its kernels."""
    rows = []
    for size, one in result["sizes"].items():
        busy = "" if one["busy_ms"] is None else f", busy {figure(one['busy_ms'])}, gaps {figure(one['gap_ms'])}"
        launches = f", {one['launches_per_step']:.0f} launches" if one["launches_per_step"] else ""
        name = f"{size} px: the step{busy}{launches}"
        rows.append([name, figure(one["wall_ms"]), f"{one['kernels_per_step']:.0f}", ""])
        rows += [
            [
                f"{size} px: {kernel['name'][:80]}",
                figure(kernel["ms"]),
                f"{kernel['per_step']:.1f}",
                f"{kernel['share']:.1%}",
            ]
            for kernel in one["kernels"]
        ]
    return ("kernel", "ms per step", "calls per step", "share"), rows
