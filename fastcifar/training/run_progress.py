"""The progress of a run, as it is displayed."""

import contextlib
import time
from collections.abc import Iterator

import numpy as np

from fastcifar.runtime.progress import Progress, progress
from fastcifar.training.context import RunContext
from fastcifar.training.history import History

SHOW_EVERY_S = 0.05
"""Updating the display takes longer than launching a step on a GPU."""


class RunProgress:
    """Shows steps and epochs. The time left is estimated from pixels, because a step on small images is fast."""

    def __init__(self, bar: Progress, context: RunContext, fractions: np.ndarray) -> None:
        """`fractions` of the run's pixels that are done after each step, float64 (steps,)."""
        self.bar, self.context, self.fractions = bar, context, fractions
        dataset = context.manifest.dataset
        self.always_shown: dict[str, str] = {} if dataset == "cifar10" else {"data": dataset}
        self._shown = 0.0

    def show(self, done: int, history: History) -> None:
        """Updates the display after `done` steps, at least one, with the loss and accuracy that were read last."""
        now = time.monotonic()
        if now - self._shown < SHOW_EVERY_S and done < self.context.total:
            return
        self._shown = now
        fields = {"epoch": f"{done / self.context.steps_per_epoch:.2f}/{self.context.config.epochs:g}"}
        if history.loss is not None:
            fields |= {"loss": f"{history.loss:.3f}", "acc": f"{history.accuracy:.1%}"}
        self.bar.update(done, self.fractions[done - 1], **fields, **self.always_shown)

    def show_test_accuracy(self, accuracy: float) -> None:
        """Shows a test accuracy (0..1) from the next update on."""
        self.always_shown["test"] = f"{accuracy:.1%}"


@contextlib.contextmanager
def run_progress(context: RunContext, first: int) -> Iterator[RunProgress]:
    """The display of a run that starts at step `first`."""
    pixels = np.cumsum([context.image_size(step) ** 2 for step in range(context.total)])
    fractions = pixels / pixels[-1]
    label = f"{context.config.recipe} seed {context.config.seed}"
    begin = float(fractions[first - 1]) if first else 0.0
    with progress(label, context.total, "steps", first=first, begin=begin) as bar:
        yield RunProgress(bar, context, fractions)
