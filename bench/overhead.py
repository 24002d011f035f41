"""`python -m bench overhead`: what the trainer's own work costs, as a fraction of a step.

Own work is all that the trainer does between steps: rates, metrics, the checks of loss and chance, progress, signals,
the checkpoint_schedule of checkpoints. It is timed by a whole training whose steps do nothing; the steps themselves by taking
them without the trainer.
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

from bench.measure import check_out, check_runs, described, figure, finish, result_path, summary, table
from fastcifar.config import Config, ModelConfig, ResNetConfig, SpeedNetConfig
from fastcifar.data.prepared import load_manifest
from fastcifar.errors import UserError
from fastcifar.loader.base import Loader
from fastcifar.optim.build import build_optimizer
from fastcifar.optim.schedules import one_cycle
from fastcifar.recipes import RECIPES
from fastcifar.runtime.device import Runtime, default_recipe, select_runtime
from fastcifar.runtime.threads import apply_threads
from fastcifar.training import trainer
from fastcifar.training.context import RunContext
from fastcifar.training.loop import Step, training_steps
from fastcifar.training.step import TrainStep

WARM_UP = 2  # steps before the timed ones
EMPTY_STEPS = 5000  # at least, of a training that does nothing
CLOCK = {
    "own_us": "train clock of a training whose steps do nothing, by its number of steps",
    "step_s": "perf_counter around one step with its batch, the device idle before and after",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Time what the trainer adds to its steps."""

    data: Path = Path("data")
    """Prepared data."""
    out: Path | None = None
    """The result file; by default one in bench/results/ that says what it holds."""
    runs: int = 7
    """Repetitions: trainings of empty steps, and timed steps of each size."""
    recipe: str | None = None
    """The recipe; by default that of `make train` on this machine."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    threads: int | None = None
    """CPU threads; None leaves torch's choice."""
    quick: bool = False
    """One repetition: shows that it works, measures nothing."""


def main(arguments: list[str]) -> None:
    """Measures, prints a table, writes the JSON; the last line is the JSON."""
    from fastcifar.cli.parsing import parse

    options = parse(Options, arguments, prog="python -m bench overhead")
    check_runs(options.runs)
    check_out(options.out)
    name = options.recipe or default_recipe()
    if name not in RECIPES:
        raise UserError(f"no recipe is called {name}: choose one of {', '.join(RECIPES)}")
    config = dataclasses.replace(RECIPES[name](), data=options.data, device=options.device, threads=options.threads)
    runtime = select_runtime(config)
    runs = 1 if options.quick else options.runs
    own = [own_seconds(config, 200 if options.quick else EMPTY_STEPS) for _ in range(runs)]
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
        "own_us": summary([1e6 * seconds for seconds in own]),
        "steps": {
            str(size): {
                "step_s": summary(taken),
                "own_fraction": summary(own)["median"] / summary(taken)["median"],
            }
            for size, taken in steps.items()
        },
    }
    finish(result, printed(result), options.out or result_path(result, name))


def own_seconds(config: Config, at_least: int) -> float:
    """Seconds of the trainer's own work a step."""
    per_epoch = RunContext(config, select_runtime(config)).steps_per_epoch
    with tempfile.TemporaryDirectory() as runs, _steps_do_nothing(), open(os.devnull, "w") as nowhere:  # noqa: PTH123
        # an epoch is at least as long as the recipe's, and its end is own work as well
        epochs = max(config.epochs, at_least / per_epoch)
        empty = dataclasses.replace(
            config, epochs=epochs, runs=Path(runs), evaluate_every=0, model=_narrow(config.model)
        )
        with contextlib.redirect_stderr(nowhere):
            _, record = trainer.train(empty)
    return record["clock"]["train_s"] / record["steps"]


def _narrow(model: ModelConfig) -> ModelConfig:
    """A network of the same kind that is quickly built and evaluated: own work does not depend on its size."""
    if isinstance(model, SpeedNetConfig):
        return dataclasses.replace(model, widths=(8,) * len(model.widths))
    return dataclasses.replace(model, width=2) if isinstance(model, ResNetConfig) else model


@contextlib.contextmanager
def _steps_do_nothing() -> Iterator[None]:
    taken = trainer.training_steps
    trainer.training_steps = _empty_steps
    try:
        yield
    finally:
        trainer.training_steps = taken


def _empty_steps(context: RunContext, step_once: TrainStep, loader: Loader, first: int = 0) -> Iterator[Step]:
    """As many as the run has; they guess just well enough not to be stopped."""
    device, peak = context.runtime.device, context.config.schedule.peak_epoch / context.config.epochs
    loss, right = torch.ones((), device=device), torch.tensor(context.config.batch_size // 2, device=device)
    for number in range(first, context.total):
        fraction = one_cycle(number, context.total, peak, context.config.schedule)
        context.before_step(step_once.model, number)
        yield Step(number, fraction, loss, right)


def step_seconds(config: Config, runtime: Runtime, size: int, runs: int) -> list[float]:
    """Seconds of single steps on images of `size`."""
    context = RunContext(dataclasses.replace(config, resolution=((1.0, size),)), runtime)
    taken: list[float] = []
    with apply_threads(runtime), context.open("train") as loader:
        model = context.new_model(loader)
        optimizer = build_optimizer(model, config.optimizer, config.batch_size)
        steps = training_steps(context, TrainStep(model, optimizer, runtime, config.label_smoothing), loader)
        for number in range(WARM_UP + runs):
            runtime.synchronise()
            start = time.perf_counter()
            next(steps)
            runtime.synchronise()
            if number >= WARM_UP:
                taken.append(time.perf_counter() - start)
    return taken


def printed(result: dict[str, Any]) -> str:
    """The table of the terminal."""
    own = result["own_us"]
    rows = [
        (f"step at {size} px", *(figure(1e3 * one["step_s"][key]) for key in ("median", "min", "max")), fraction)
        for size, one in result["steps"].items()
        for fraction in (f"{one['own_fraction']:.3%}",)
    ]
    first = ("own work", *(figure(own[key] / 1e3) for key in ("median", "min", "max")), "-")
    return table(("of a step", "ms", "min", "max", "own fraction"), [first, *rows])


if __name__ == "__main__":
    from fastcifar.cli.console import run_command

    run_command(main)
