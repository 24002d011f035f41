"""The learning-rate range test: trains a throw-away network for a few steps at growing learning rates.

Source: L. Smith, "Cyclical learning rates for training neural networks" (arXiv 1506.01186, section 3.3), where the
rate grows linearly. By default it grows exponentially here, as in fastai and Lightning, because what matters is its
order of magnitude.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from torch import Tensor

from fastcifar.analysis import lr_suggest
from fastcifar.config import Config
from fastcifar.config.components import LARGEST_LR, require
from fastcifar.loader.base import Loader
from fastcifar.models.hooks import before_step
from fastcifar.optim.rates import set_lr
from fastcifar.rng import Purpose, seeded
from fastcifar.runtime.device import select_runtime
from fastcifar.runtime.progress import progress
from fastcifar.runtime.threads import run_settings
from fastcifar.training.clock import Stopwatch
from fastcifar.training.context import RunContext
from fastcifar.training.prepared import PreparedTraining
from fastcifar.training.step import TrainStep
from fastcifar.training.steps import lr_scale, resolution

Kind = Literal["exponential", "linear"]
DIVERGED = 4.0
"""The test ends when the average loss exceeds this many times its minimum, as in fastai and Lightning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeTest:
    """The measurements of a range test."""

    kind: Kind
    iterations: int
    """Planned number of steps; `rates` has fewer if the loss diverged."""
    rates: np.ndarray
    """Learning rate of each step, ascending, float64 (n,)."""
    losses: np.ndarray
    """Training loss before each step's update, float64 (n,); the last one may not be finite."""
    diverged: bool
    seconds: float
    dataset: str
    recipe: str

    @property
    def curve(self) -> lr_suggest.Curve:
        """The finite losses without outliers, smoothed."""
        return lr_suggest.clean(self.rates, self.losses, self.iterations)

    def suggest(self) -> dict[lr_suggest.Method, lr_suggest.Suggestion]:
        """Suggested learning rates by method; raises RunFailedError if the loss does not clearly fall."""
        return lr_suggest.suggest(self.curve)


def rates_of(kind: Kind, start: float, end: float, iterations: int) -> np.ndarray:
    """The learning rates of a test, from `start` to `end` inclusive, float64 (iterations,). Raises UserError."""
    require(kind in ("exponential", "linear"), f"kind is {kind!r}, but must be exponential or linear")
    for name, value in (("from", start), ("to", end)):
        require(0 < value <= LARGEST_LR, f"{name} is {value}, but must be above 0 and at most {LARGEST_LR:g}")
    require(start < end, f"from is {start:g} and to is {end:g}, but the learning rate must grow")
    require(10 <= iterations <= 100_000, f"iterations is {iterations}, but must be between 10 and 100000")
    return (np.geomspace if kind == "exponential" else np.linspace)(start, end, iterations)


def lr_range_test(
    config: Config, *, kind: Kind = "exponential", start: float = 1e-5, end: float = 10.0, iterations: int = 100
) -> RangeTest:
    """Trains a new network for up to `iterations` steps while `optimizer.lr` grows from `start` to `end`.

    The optimiser's other learning rates grow in proportion. Images come in the order of the run's first epochs, at the
    resolution that they have when the schedule peaks. The test has no side effects: it restores torch's random state
    and the thread counts, and a run of `config` afterwards is the same bit for bit.

    Raises UserError for invalid values and for missing data.
    """
    rates = rates_of(kind, start, end, iterations)
    size = _size_at_peak(config)
    config = replace(config, resolution=((1.0, size),), graph=False)
    runtime = select_runtime(config)
    with run_settings(runtime, deterministic=config.deterministic), seeded(config.seed, Purpose.DROPOUT):
        context = RunContext(config, runtime)
        PreparedTraining(context)  # compiles and checks the kernels
        watch = Stopwatch(runtime.synchronise)
        watch.start()
        losses, diverged = _train(context, rates)
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


def _train(context: RunContext, rates: np.ndarray) -> tuple[np.ndarray, bool]:
    """Losses of a new network at one batch per rate, as `sweep` returns them."""
    config = context.config
    with context.open("train") as loader, contextlib.closing(_batches(loader)) as batches:
        model = context.initial_model(loader)
        before_step(model, 0, context.steps_per_epoch)
        optimizer = config.optimizer.build(model, config.batch_size)
        train_step = TrainStep(model.train(), optimizer, context.runtime, config.label_smoothing)

        def loss_at(rate: float) -> float:
            set_lr(optimizer, rate / config.optimizer.lr)
            return float(train_step(*next(batches))[0])

        with progress(f"range test of {config.recipe}", len(rates), "steps") as bar:
            return sweep(
                loss_at,
                rates,
                lambda done, rate, loss: bar.update(done, lr=f"{rate:.2e}", loss=f"{loss:.3f}"),
            )


def sweep(
    loss_at: Callable[[float], float],
    rates: np.ndarray,
    on_step: Callable[[int, float, float], None] = lambda done, rate, loss: None,
) -> tuple[np.ndarray, bool]:
    """Takes a step at each of `rates` until the loss diverges.

    Diverged means: not finite, or a running average above DIVERGED times its minimum. `loss_at(rate)` takes a step and
    returns the loss before it; `on_step(steps done, rate, average loss)` is called after each step. Returns the losses
    (n,), n <= len(rates), and whether they diverged.
    """
    average, best, losses = lr_suggest.RunningLoss(lr_suggest.decay_of(len(rates))), math.inf, []
    for done, rate in enumerate(rates, 1):
        losses.append(loss_at(float(rate)))
        smooth = average.add(losses[-1])
        on_step(done, float(rate), smooth)
        if not math.isfinite(smooth) or smooth > DIVERGED * best:
            return np.array(losses), True
        best = min(best, smooth)
    return np.array(losses), False


def with_rates(config: Config, found: lr_suggest.Suggestion) -> Config:
    """`config` with a schedule that peaks at the maximum and starts and ends at the minimum rate.

    The optimiser's other learning rates keep their proportion to `lr`. A schedule without a start and an end, such as
    step_decay, stays as it is.
    """
    schedule = config.schedule.with_ends(found.minimum / found.maximum)
    return replace(config, optimizer=config.optimizer.with_lr(found.maximum), schedule=schedule)


def find_rates(config: Config) -> tuple[Config, str]:
    """`config` with the learning rates that a range test suggests, and a line of text that says which.

    Raises what `lr_range_test` and `RangeTest.suggest` raise.
    """
    test = lr_range_test(config)
    found = test.suggest()[lr_suggest.DEFAULT_METHOD]
    before, config = config, with_rates(config, found)
    ends = "" if config.schedule == before.schedule else f", {found.minimum:.4g} at the ends"
    return config, (
        f"learning rate       {found.maximum:.4g} found ({lr_suggest.DEFAULT_METHOD}){ends}; "
        f"range test of {len(test.rates)} steps in {test.seconds:.1f} s"
    )


def _size_at_peak(config: Config) -> int:
    steps = 10_000  # stages of the resolution are fractions of a run; any number that is fine enough
    scales = [lr_scale(config, step, steps) for step in range(steps)]
    return resolution(scales.index(max(scales)), steps, config.resolution)


def _batches(loader: Loader) -> Generator[tuple[Tensor, Tensor]]:
    """The batches of epochs 0, 1, ..., endlessly."""
    for epoch in itertools.count():
        yield from loader.epoch(epoch)
