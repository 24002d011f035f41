"""`python -m bench overhead`: what the trainer adds to a step, as a fraction of the step.

The overhead is the learning rate, metrics, the checks for divergence and for accuracy no better than chance, progress,
signals and the checkpoint schedule. It is timed with a whole training whose steps do nothing, and compared with single
steps taken without the trainer.
"""

import contextlib
import dataclasses
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from bench.measure import Table, check_out, check_runs, described, finish, milliseconds, result_path, summary
from fastcifar.config import Config, ModelConfig
from fastcifar.data.prepared import load_manifest
from fastcifar.errors import UserError
from fastcifar.loader.base import Loader
from fastcifar.models.hooks import before_step
from fastcifar.models.resnet import ResNetConfig
from fastcifar.models.speednet import SpeedNetConfig
from fastcifar.optim.rates import set_lr
from fastcifar.recipes import RECIPES
from fastcifar.runtime.device import Runtime, default_recipe, select_runtime
from fastcifar.runtime.threads import apply_threads
from fastcifar.training import trainer
from fastcifar.training.context import RunContext
from fastcifar.training.loop import EagerSteps, Step, Steps, training_steps
from fastcifar.training.step import TrainStep

WARM_UP = 2  # steps before the timed ones
EMPTY_STEPS = 5000  # smallest number of steps in a training whose steps do nothing
CLOCK = {
    "overhead_us": "train clock of a training whose steps do nothing, divided by its number of steps",
    "step_s": "perf_counter around one step with its batch, with the device idle before and after",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Time what the trainer adds to its steps."""

    data: Path = Path("data")
    """Folder of the prepared data."""
    out: Path | None = None
    """Result file, or an existing folder for it. Default: a file in bench/results/ named after the benchmark."""
    runs: int = 7
    """Repetitions: trainings with empty steps, and timed steps of each image size."""
    recipe: str | None = None
    """Name of the recipe. Default: the default recipe of this machine."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to train on."""
    threads: int | None = None
    """CPU threads. Default: PyTorch's choice."""
    quick: bool = False
    """One repetition, to check that the benchmark works."""


def main(arguments: list[str]) -> None:
    """Measures, prints a table, writes the JSON and prints it as the last line."""
    from fastcifar.cli.parsing import parse

    options = parse(Options, arguments, prog="python -m bench overhead")
    check_runs(options.runs)
    check_out(options.out)
    name = options.recipe or default_recipe()
    if name not in RECIPES:
        raise UserError(f"unknown recipe {name!r}; choose one of {', '.join(RECIPES)}")
    config = dataclasses.replace(RECIPES[name](), data=options.data, device=options.device, threads=options.threads)
    runtime = select_runtime(config)
    runs = 1 if options.quick else options.runs
    overhead = [overhead_seconds(config, 200 if options.quick else EMPTY_STEPS) for _ in range(runs)]
    sizes = sorted({size for _, size in config.resolution})
    steps = {size: step_seconds(config, runtime, size, runs) for size in sizes}
    result = {
        "what": "overhead",
        "dataset": load_manifest(options.data).dataset,
        **described(runtime),
        "n": runs,
        "recipe": name,
        "batch_size": config.batch_size,
        "clock": CLOCK,
        "overhead_us": summary([1e6 * seconds for seconds in overhead]),
        "steps": {
            str(size): {
                "step_s": summary(seconds),
                "overhead_fraction": summary(overhead)["median"] / summary(seconds)["median"],
            }
            for size, seconds in steps.items()
        },
    }
    finish(result, table_of(result), result_path(result, name, options.out))


def overhead_seconds(config: Config, at_least: int) -> float:
    """The trainer's overhead in seconds per step."""
    per_epoch = RunContext(config, select_runtime(config)).steps_per_epoch
    with tempfile.TemporaryDirectory() as runs, _empty_training_steps(), open(os.devnull, "w") as nowhere:  # noqa: PTH123
        # not fewer epochs than the recipe has: the work at the end of an epoch is overhead as well
        epochs = max(config.epochs, at_least / per_epoch)
        empty = dataclasses.replace(
            config, epochs=epochs, runs=Path(runs), evaluate_every=0, model=_narrow(config.model)
        )
        with contextlib.redirect_stderr(nowhere):
            _, record = trainer.train(empty)
    return record["clock"]["train_s"] / record["steps"]


def _narrow(model: ModelConfig) -> ModelConfig:
    """A small network of the same kind, which is built and evaluated quickly; the overhead is the same."""
    if isinstance(model, SpeedNetConfig):
        return dataclasses.replace(model, widths=(8,) * len(model.widths))
    return dataclasses.replace(model, width=2) if isinstance(model, ResNetConfig) else model


@contextlib.contextmanager
def _empty_training_steps() -> Iterator[None]:
    original = trainer.training_steps
    trainer.training_steps = _empty_steps
    try:
        yield
    finally:
        trainer.training_steps = original


def _empty_steps(steps: Steps, loader: Loader, first: int = 0) -> Iterator[Step]:
    """Steps without training, with half of the predictions correct, so that the trainer does not stop the run."""
    context, step_once = steps.context, steps.train_step
    device, schedule = context.runtime.device, context.config.schedule
    loss, num_correct = torch.ones((), device=device), torch.tensor(context.config.batch_size // 2, device=device)
    for number in range(first, context.total):
        rates = set_lr(step_once.optimizer, schedule.lr_scale(number, context.total, context.config.epochs))
        before_step(step_once.model, number, context.steps_per_epoch)
        yield Step(number, rates, loss, num_correct)


def step_seconds(config: Config, runtime: Runtime, size: int, runs: int) -> list[float]:
    """Seconds of `runs` single steps on images of `size` pixels."""
    context = RunContext(dataclasses.replace(config, resolution=((1.0, size),)), runtime)
    taken: list[float] = []
    with apply_threads(runtime), context.open("train") as loader:
        model = context.initial_model(loader)
        optimizer = config.optimizer.build(model, config.batch_size)
        train_step = TrainStep(model, optimizer, runtime, config.label_smoothing)
        steps = training_steps(EagerSteps(context, train_step), loader)
        for number in range(WARM_UP + runs):
            runtime.synchronise()
            start = time.perf_counter()
            next(steps)
            runtime.synchronise()
            if number >= WARM_UP:
                taken.append(time.perf_counter() - start)
    return taken


def table_of(result: dict[str, Any]) -> Table:
    """A row for each image size."""
    rows = [
        [f"{size} px", milliseconds(one["step_s"]), f"{one['overhead_fraction']:.3%}"]
        for size, one in result["steps"].items()
    ]
    return ("step", "ms", "overhead"), rows
