"""The learning-rate range test: a short training at an ever larger rate, on a copy that is thrown away.

Source: L. Smith, "Cyclical learning rates for training neural networks" (arXiv 1506.01186, section 3.3), where the
rate grows linearly; it grows exponentially by default here, as in fastai and Lightning, since a rate is sought by its
order of magnitude.
"""

import contextlib
import copy
import itertools
import math
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from fastcifar.analysis.lr_suggest import (
    DEFAULT_METHOD,
    Curve,
    Method,
    RunningLoss,
    Suggestion,
    clean,
    decay_of,
    suggest,
)
from fastcifar.config import Config
from fastcifar.config.components import LARGEST_LR, require
from fastcifar.loader.base import Loader
from fastcifar.optim.build import Optimizer, build_optimizer
from fastcifar.optim.schedules import resolution
from fastcifar.rng import Purpose, seeded
from fastcifar.runtime.device import Runtime, select_runtime
from fastcifar.runtime.progress import progress
from fastcifar.runtime.threads import apply_threads
from fastcifar.training.clock import Stopwatch
from fastcifar.training.context import RunContext
from fastcifar.training.step import TrainStep
from fastcifar.training.warm_up import compile_kernels

Kind = Literal["exponential", "linear"]
DIVERGED = 4.0
"""The test ends once the average loss is so many times the best one, as in fastai and Lightning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeTest:
    """What a range test measured."""

    kind: Kind
    iterations: int
    """Steps that were planned; `rates` has fewer where the loss diverged before."""
    rates: np.ndarray
    """Learning rate of each step, ascending, float64 (n,)."""
    losses: np.ndarray
    """Loss of each step before its update, float64 (n,); the last one may not be finite."""
    diverged: bool
    seconds: float
    dataset: str
    recipe: str

    @property
    def curve(self) -> Curve:
        """The usable points, smoothed."""
        return clean(self.rates, self.losses, self.iterations)

    def suggest(self) -> dict[Method, Suggestion]:
        """Learning rates by each method; raises RunFailedError where the losses suggest none."""
        return suggest(self.curve)


def rates_of(kind: Kind, start: float, end: float, iterations: int) -> np.ndarray:
    """The learning rates of a test, from `start` to `end`, both included: float64 (iterations,). Raises UserError."""
    require(kind in ("exponential", "linear"), f"kind is {kind!r}, but must be exponential or linear")
    for name, value in (("from", start), ("to", end)):
        require(0 < value <= LARGEST_LR, f"{name} is {value}, but must be above 0 and at most {LARGEST_LR:g}")
    require(start < end, f"from is {start:g} and to is {end:g}, but the learning rate must grow")
    require(10 <= iterations <= 100_000, f"iterations is {iterations}, but must be between 10 and 100000")
    return (np.geomspace if kind == "exponential" else np.linspace)(start, end, iterations)


def lr_range_test(
    config: Config, *, kind: Kind = "exponential", start: float = 1e-5, end: float = 10.0, iterations: int = 100
) -> RangeTest:
    """Trains a network of `config` for up to `iterations` steps, at rates of `optimizer.lr` from `start` to `end`.

    Rates beside `optimizer.lr` grow in proportion to it. Images come in the order of the run's first epochs, at the
    side that they have where its schedule peaks. Nothing is left behind: torch's random numbers and the thread
    counts are as before, and a run of `config` afterwards is the same bit for bit.

    Raises UserError for values that are refused and for data that is missing.
    """
    rates = rates_of(kind, start, end, iterations)
    size = _size_at_peak(config)
    config = replace(config, resolution=((1.0, size),))
    runtime = select_runtime(config)
    with apply_threads(runtime), seeded(config.seed, Purpose.DROPOUT):
        context = RunContext(config, runtime)
        compile_kernels(runtime, {size})
        watch = Stopwatch(runtime.synchronise)
        watch.start()
        with context.open("train") as loader, contextlib.closing(_batches(loader)) as batches:
            model = context.new_model(loader)
            context.before_step(model, 0)
            losses, diverged = losses_on_a_copy(
                model, build_optimizer(model, config.optimizer, config.batch_size), batches, runtime, rates, config
            )
        watch.stop()
    return RangeTest(
        kind=kind,
        iterations=iterations,
        rates=rates[: len(losses)],
        losses=losses,
        diverged=diverged,
        seconds=watch.seconds,
        dataset=context.manifest.dataset,
        recipe=config.recipe,
    )


def losses_on_a_copy(
    model: nn.Module,
    optimizer: Optimizer,
    batches: Iterable[tuple[Tensor, Tensor]],
    runtime: Runtime,
    rates: np.ndarray,
    config: Config,
) -> tuple[np.ndarray, bool]:
    """Losses (n,), n <= len(rates), at one batch a rate, and whether they diverged.

    `optimizer` updates `model`, from whatever state both are in; copies of them are trained, they are left alone.
    """
    model, optimizer = copy.deepcopy((model, optimizer))  # together, so that the one still updates the other
    step_once = TrainStep(model.train(), optimizer, runtime, config.label_smoothing)
    waiting = iter(batches)
    with progress(f"range test of {config.recipe}", len(rates), "steps") as bar:

        def loss_at(rate: float) -> float:
            images, labels = next(waiting)
            return float(step_once(images, labels, rate / config.optimizer.lr)[0])

        return sweep(loss_at, rates, lambda done, rate, loss: bar.update(done, lr=f"{rate:.2e}", loss=f"{loss:.3f}"))


def sweep(
    loss_at: Callable[[float], float],
    rates: np.ndarray,
    on_step: Callable[[int, float, float], None] = lambda done, rate, loss: None,
) -> tuple[np.ndarray, bool]:
    """Takes a step at each of `rates` until the loss diverges: (losses (n,), n <= len(rates); whether it diverged).

    It has where it is not finite, or its average DIVERGED times the best average of before; loss_at(rate) takes a
    step and returns the loss before it, on_step(steps done, rate, average loss) is told of each.
    """
    average, best, losses = RunningLoss(decay_of(len(rates))), math.inf, []
    for done, rate in enumerate(rates, 1):
        losses.append(loss_at(float(rate)))
        smooth = average.add(losses[-1])
        on_step(done, float(rate), smooth)
        if not math.isfinite(smooth) or smooth > DIVERGED * best:
            return np.array(losses), True
        best = min(best, smooth)
    return np.array(losses), False


def with_rates(config: Config, found: Suggestion) -> Config:
    """`config` with the peak of its schedule at the largest rate and both ends at the smallest.

    Other rates of the optimiser keep their proportion to `lr`. A schedule of steps keeps its fractions of the largest.
    """
    optimizer: Any = config.optimizer
    factor = found.maximum / optimizer.lr
    others = {f.name: getattr(optimizer, f.name) * factor for f in fields(optimizer) if f.name.endswith("_lr")}
    schedule = config.schedule
    if schedule.anneal != "step":
        fraction = found.minimum / found.maximum
        schedule = replace(schedule, start=fraction, end=fraction)
    return replace(config, optimizer=replace(optimizer, lr=found.maximum, **others), schedule=schedule)


def find_rates(config: Config) -> tuple[Config, str]:
    """`config` with the rates that a range test finds for it, and what was found, in a line.

    Raises what `lr_range_test` raises, and RunFailedError where the losses suggest none.
    """
    test = lr_range_test(config)
    found = test.suggest()[DEFAULT_METHOD]
    config = with_rates(config, found)
    ends = "" if config.schedule.anneal == "step" else f", {found.minimum:.4g} at the ends"
    return config, (
        f"learning rate       {found.maximum:.4g} found ({DEFAULT_METHOD}){ends}; "
        f"range test of {len(test.rates)} steps in {test.seconds:.1f} s"
    )


def _size_at_peak(config: Config) -> int:
    fraction = config.schedule.peak_epoch / config.epochs
    parts = 10_000  # of a run, whose stages are fractions; any number that is fine enough
    return resolution(min(int(fraction * parts), parts - 1), parts, config.resolution)


def _batches(loader: Loader) -> Generator[tuple[Tensor, Tensor]]:
    """The batches of epoch 0, 1, ... without end."""
    for epoch in itertools.count():
        yield from loader.epoch(epoch)
