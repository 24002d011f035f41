"""`python -m bench layers`: training steps of a recipe on a CPU with torch's layers and with ours, turn by turn."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bench import measure as m
from fastcifar.config import KERNEL_NAMES, Config, CpuKernels, SpeedNetConfig
from fastcifar.errors import UserError
from fastcifar.models.build import build_model, use_kernels
from fastcifar.optim.build import build_optimizer
from fastcifar.recipes import RECIPES
from fastcifar.runtime.device import Runtime, select_runtime
from fastcifar.runtime.threads import apply_threads, keep_freed_memory
from fastcifar.training.step import TrainStep

CLOCK = "perf_counter around one step (forward, backward, update) on images of noise that are there already"
WARM_UP = 2
KINDS: tuple[CpuKernels, ...] = ("torch", "winograd", "winograd-fp16")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Time a recipe's training steps at each of its image sizes, by torch's layers and by ours."""

    recipe: str = "cpu90"
    """The recipe."""
    out: Path | None = None
    """The result file; by default one in bench/results/ that says what it holds."""
    runs: int = 7
    """Timed rounds, after two that warm up; a round is one step with each kind of layers."""
    threads: int | None = None
    """CPU threads; None leaves torch's choice."""
    quick: bool = False
    """One round: shows that it works, measures nothing."""


def main(arguments: list[str]) -> None:
    """Measures, prints a table, writes the JSON; the last line is the JSON."""
    from fastcifar.cli.parsing import parse

    options = parse(Options, arguments, prog="python -m bench layers")
    m.check_runs(options.runs)
    if options.recipe not in RECIPES:
        raise UserError(f"recipe is {options.recipe!r}, but must be one of {', '.join(RECIPES)}")
    m.check_out(options.out)
    keep_freed_memory()
    config = replace(RECIPES[options.recipe](), device="cpu", amp="float32", threads=options.threads)
    runs = 1 if options.quick else options.runs
    runtimes = {}
    for name in KINDS:
        with contextlib.suppress(UserError):  # a CPU without float16
            runtimes[name] = select_runtime(replace(config, cpu_kernels=name))
    runtime = runtimes["winograd"]
    sizes = sorted({size for _, size in config.resolution})
    with apply_threads(runtime):
        steps = {str(size): measured(config, runtimes, size, runs) for size in sizes}
    result = {
        "what": "layers",
        "recipe": options.recipe,
        **m.described(runtime),
        "n": runs,
        "batch_size": config.batch_size,
        "clock": CLOCK,
        "steps": steps,
    }
    m.finish(result, printed(result), options.out or m.result_path(result, options.recipe))


def measured(config: Config, runtimes: dict[str, Runtime], size: int, runs: int) -> dict[str, Any]:
    """Seconds a step of each kind, in interleaved rounds, and torch's over ours round by round."""
    kinds = {name: stepper(config, runtime, size) for name, runtime in runtimes.items()}
    for step in kinds.values():
        for _ in range(WARM_UP):
            step()
    taken = m.interleave(kinds, runs, f"{size} px")
    return {
        name: {"step_s": m.summary(seconds), "torch_over_this": m.ratios(taken["torch"], seconds)}
        for name, seconds in taken.items()
    }


def stepper(config: Config, runtime: Runtime, size: int) -> Callable[[], float]:
    """Seconds of the next step of a network of its own."""
    model = build_model(config.model, 10, config.seed).train()
    use_kernels(model, runtime.cpu_kernels)
    if isinstance(config.model, SpeedNetConfig):
        model.stem_learns(False)  # type: ignore[operator]  (as in most of its steps)
    step_once = TrainStep(
        model, build_optimizer(model, config.optimizer, config.batch_size), runtime, config.label_smoothing
    )
    generator = torch.Generator().manual_seed(config.seed)
    images = torch.randn(config.batch_size, 3, size, size, generator=generator)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (config.batch_size,), generator=generator)

    def step() -> float:
        return m.seconds(lambda: step_once(images, labels, 0.1), runtime.synchronise)

    return step


def printed(result: dict[str, Any]) -> str:
    """The table for a terminal."""
    rows = [
        [
            f"{size} px, {KERNEL_NAMES[name]}",
            f"{1e3 * one['step_s']['median']:,.0f}",
            f"{one['torch_over_this']['median']:.2f}",
        ]
        for size, kinds in result["steps"].items()
        for name, one in kinds.items()
    ]
    table = m.table(("a step at", "ms", "torch's / this"), rows)
    return f"{table}\n{result['recipe']}, batch {result['batch_size']}, n = {result['n']}"
