"""The learning-rate range test: short trainings of a recipe at several peak rates.

L. Smith's test (arXiv 1506.01186, section 3.3) lets the rate grow within one training. What a rate does then depends on
how fast it was reached: a network that has hardly been trained diverges at rates that a warm-up makes harmless. Here
every rate has a training of its own, with the schedule of the recipe shortened to a few steps, from the same weights
and with the same images (`lr_search`).
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from fastcifar.analysis.lr_search import LENGTHS, Curve, Found, found, search
from fastcifar.config import Config
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

LAST_PART = 4
"""The loss at the end of a training is the mean of its last steps, one in so many of all; each has new images."""

USUAL_STEPS, ALMOST = 7 * LENGTHS[0] + 5 * LENGTHS[1], 0.99
"""For the progress display: how many steps are needed is known at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeTest:
    """The measurements of a range test."""

    short: Curve
    long: Curve
    total: int
    """Steps of the training that the rates are for."""
    seconds: float
    dataset: str
    recipe: str

    @property
    def found(self) -> Found:
        """The rates that the test suggests."""
        return found(self.short, self.long, self.total)


def lr_range_test(config: Config) -> RangeTest:
    """Trains new networks for a few steps each until the rates that suit `config` are found.

    The optimiser's other learning rates change in proportion to `optimizer.lr`, and the search starts near it. Images
    come in the order of the run's first epochs, at the resolution that they have when the schedule peaks. The test has
    no side effects: it restores torch's random state and the thread counts, and a run of `config` afterwards is the
    same bit for bit.

    Raises UserError for missing data, and RunFailedError if the loss falls at no rate.
    """
    with (
        opened(config) as (context, loader),
        progress(f"range test of {config.recipe}", USUAL_STEPS, "steps") as bar,
    ):
        done = itertools.count(1)
        watch = Stopwatch(context.runtime.synchronise)
        watch.start()

        def on_step(rate: float, loss: float) -> None:
            number = next(done)
            bar.update(number, min(number / USUAL_STEPS, ALMOST), lr=f"{rate:.2e}", loss=f"{loss:.3f}")

        def loss_at(rate: float, steps: int) -> float:
            rates = [rate * lr_scale(config, step, steps) for step in range(steps)]
            losses = train_at(context, loader, rates, on_step)
            return float(np.mean(losses[-(steps // LAST_PART) :])) if len(losses) == steps else math.inf

        guessing = math.log(len(context.manifest.class_names))
        short, long = search(loss_at, config.optimizer.lr, guessing)
        watch.stop()
    return RangeTest(
        short=short,
        long=long,
        total=context.total,
        seconds=watch.seconds,
        dataset=context.manifest.dataset,
        recipe=config.recipe,
    )


def train_at(
    context: RunContext, loader: Loader, rates: Iterable[float], on_step: Callable[[float, float], None]
) -> list[float]:
    """Trains a new network for a step at each of `rates`; the losses before the steps, as far as they are finite.

    The last one returned may be infinite or NaN. `on_step(rate, loss)` is called after each step.
    """
    config = context.config
    model = context.initial_model(loader)
    optimizer = config.optimizer.build(model, config.batch_size)
    train_step = TrainStep(model.train(), optimizer, context.runtime, config.label_smoothing)
    losses: list[float] = []
    with contextlib.closing(_batches(loader)) as batches, seeded(config.seed, Purpose.DROPOUT):
        for step, rate in enumerate(rates):
            before_step(model, step, context.steps_per_epoch)
            set_lr(optimizer, rate / config.optimizer.lr)
            losses.append(float(train_step(*next(batches))[0]))
            on_step(rate, losses[-1])
            if not math.isfinite(losses[-1]):
                break
    return losses


@contextlib.contextmanager
def opened(config: Config) -> Iterator[tuple[RunContext, Loader]]:
    """The training images of `config` at the size that they have when its schedule peaks, and what trains on them.

    Restores torch's random state and the thread counts at the end. Raises UserError for missing data.
    """
    config = replace(config, resolution=((1.0, _size_at_peak(config)),), graph=False)
    runtime = select_runtime(config)
    with run_settings(runtime, deterministic=config.deterministic):
        context = RunContext(config, runtime)
        PreparedTraining(context)  # compiles and checks the kernels
        with context.open("train") as loader:
            yield context, loader


def with_rates(config: Config, rates: Found) -> Config:
    """`config` with a schedule that peaks at the maximum and starts and ends at the minimum rate.

    The optimiser's other learning rates keep their proportion to `lr`. Ends that are at the peak or at 0 stay there,
    and so does a schedule without a start and an end, such as step_decay.
    """
    schedule = config.schedule.with_ends(rates.minimum / rates.maximum)
    return replace(config, optimizer=config.optimizer.with_lr(rates.maximum), schedule=schedule)


def find_rates(config: Config) -> tuple[Config, str]:
    """`config` with the learning rates that a range test suggests, and a line of text that says which.

    Raises what `lr_range_test` raises.
    """
    test = lr_range_test(config)
    before, config = config, with_rates(config, test.found)
    ends = "" if config.schedule == before.schedule else f", {test.found.minimum:.4g} at the ends"
    trainings = len(test.short.rates) + len(test.long.rates)
    return config, (
        f"learning rate       {test.found.maximum:.4g} found{ends}; "
        f"range test of {trainings} trainings of {LENGTHS[0]} and {LENGTHS[1]} steps in {test.seconds:.1f} s"
    )


def _size_at_peak(config: Config) -> int:
    steps = 10_000  # stages of the resolution are fractions of a run; any number that is fine enough
    scales = [lr_scale(config, step, steps) for step in range(steps)]
    return resolution(scales.index(max(scales)), steps, config.resolution)


def _batches(loader: Loader) -> Generator[tuple[Tensor, Tensor]]:
    """The batches of epochs 0, 1, ..., endlessly."""
    for epoch in itertools.count():
        yield from loader.epoch(epoch)
