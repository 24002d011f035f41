"""`python -m bench layers`: training steps of a recipe on a CPU with PyTorch's layers and with ours."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from bench import measure as m
from fastcifar.config import KERNEL_NAMES, Config, CpuKernels
from fastcifar.errors import UserError
from fastcifar.models.build import build_model, use_kernels
from fastcifar.models.hooks import before_step
from fastcifar.recipes import RECIPES
from fastcifar.runtime.device import Runtime, select_runtime
from fastcifar.runtime.threads import apply_threads, keep_freed_memory
from fastcifar.training.step import TrainStep

CLOCK = "perf_counter around one step (forward, backward, update) on images of noise in memory"
WARM_UP = 2
LATE = 10**9  # a step after everything that changes during a run
KINDS: dict[str, tuple[CpuKernels, Literal["float32", "bfloat16"]]] = {
    "torch": ("torch", "float32"),
    "torch-bf16": ("torch", "bfloat16"),
    "winograd": ("winograd", "float32"),
    "winograd-fp16": ("winograd-fp16", "float32"),
    "amx": ("amx", "bfloat16"),
}
"""By name the kernels, and the type of what they do not compute."""
NAMES = {**KERNEL_NAMES, "torch-bf16": "PyTorch, bfloat16"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Time training steps of a recipe at each of its image sizes, with PyTorch's layers and with ours."""

    recipe: str = "cpu90"
    """Name of the recipe."""
    out: Path | None = None
    """Result file, or an existing folder for it. Default: a file in bench/results/ named after the benchmark."""
    runs: int = 7
    """Timed rounds, after two warm-up rounds. A round is one step with each kind of layers."""
    threads: int | None = None
    """CPU threads. Default: PyTorch's choice."""
    quick: bool = False
    """One round, to check that the benchmark works."""


def main(arguments: list[str]) -> None:
    """Measures, prints a table, writes the JSON and prints it as the last line."""
    from fastcifar.cli.parsing import parse

    options = parse(Options, arguments, prog="python -m bench layers")
    m.check_runs(options.runs)
    if options.recipe not in RECIPES:
        raise UserError(f"recipe is {options.recipe!r}, but must be one of {', '.join(RECIPES)}")
    m.check_out(options.out)
    keep_freed_memory()
    config = replace(RECIPES[options.recipe](), device="cpu", threads=options.threads)
    runs = 1 if options.quick else options.runs
    runtimes = {}
    for name, (kernels, amp) in KINDS.items():
        with contextlib.suppress(UserError):  # this CPU lacks the instructions
            runtimes[name] = select_runtime(replace(config, cpu_kernels=kernels, amp=amp))
    runtime = runtimes["winograd"]
    sizes = sorted({size for _, size in config.resolution})
    with apply_threads(runtime):
        steps = {str(size): measure_size(config, runtimes, size, runs) for size in sizes}
    result = {
        "what": "layers",
        "recipe": options.recipe,
        **m.described(runtime),
        "n": runs,
        "batch_size": config.batch_size,
        "clock": CLOCK,
        "steps": steps,
    }
    m.finish(result, table_of(result), m.result_path(result, options.recipe, options.out))


def measure_size(config: Config, runtimes: dict[str, Runtime], size: int, runs: int) -> dict[str, Any]:
    """Seconds per step of each kind, in interleaved rounds, and the speed-up over PyTorch's layers."""
    kinds = {name: stepper(config, runtime, size) for name, runtime in runtimes.items()}
    for step in kinds.values():
        for _ in range(WARM_UP):
            step()
    measured = m.interleave(kinds, runs, f"{size} px")
    return {
        name: {"step_s": m.summary(seconds), "speedup_over_torch": m.ratios(measured["torch"], seconds)}
        for name, seconds in measured.items()
    }


def stepper(config: Config, runtime: Runtime, size: int) -> Callable[[], float]:
    """Builds a network; the returned function takes a training step and returns its seconds."""
    model = build_model(config.model, 10, config.seed).train()
    use_kernels(model, runtime.cpu_kernels)
    before_step(model, LATE, 1)  # the speed network's stem is frozen in most steps
    step_once = TrainStep(model, config.optimizer.build(model, config.batch_size), runtime, config.label_smoothing)
    generator = torch.Generator().manual_seed(config.seed)
    images = torch.randn(config.batch_size, 3, size, size, generator=generator)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (config.batch_size,), generator=generator)

    def step() -> float:
        return m.seconds(lambda: step_once(images, labels), runtime.synchronise)

    return step


def table_of(result: dict[str, Any]) -> m.Table:
    """A row for each image size and kind of layers."""
    rows = [
        [f"{size} px, {NAMES[name]}", m.milliseconds(one["step_s"]), m.ranged(one["speedup_over_torch"])]
        for size, kinds in result["steps"].items()
        for name, one in kinds.items()
    ]
    return ("training step", "ms", "speed-up over PyTorch"), rows
