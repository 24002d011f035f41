"""How far a run is, as its display shows it."""

import math

import numpy as np

from fastcifar.config import Config
from fastcifar.optim.schedules import resolution
from fastcifar.runtime.progress import Progress
from fastcifar.training.history import History


class RunProgress:
    """Shows steps and epochs, and judges the time left by pixels: a step on small images is a quick one."""

    def __init__(self, bar: Progress, config: Config, *, total: int, steps_per_epoch: int, dataset: str) -> None:
        self.bar, self.epochs, self.steps_per_epoch = bar, config.epochs, steps_per_epoch
        self.fractions = _fractions(total, config.resolution)
        self.lasting: dict[str, str] = {} if dataset == "cifar10" else {"data": dataset}

    def show(self, done: int, history: History) -> None:
        """After `done` steps, at least one; the figures are those that were read last."""
        fields = {"epoch": f"{done / self.steps_per_epoch:.2f}/{self.epochs:g}"}
        if not math.isnan(history.loss):
            fields |= {"loss": f"{history.loss:.3f}", "acc": f"{history.accuracy:.1%}"}
        self.bar.update(done, self.fractions[done - 1], **fields, **self.lasting)

    def tested(self, accuracy: float) -> None:
        """Keeps a test accuracy, as a fraction, in view."""
        self.lasting["test"] = f"{accuracy:.1%}"


def fraction_of_pixels(done: int, total: int, stages: tuple[tuple[float, int], ...]) -> float:
    """The fraction of a run's pixels that are behind it after `done` steps of `total`."""
    return float(_fractions(total, stages)[done - 1]) if done else 0.0


def _fractions(total: int, stages: tuple[tuple[float, int], ...]) -> np.ndarray:
    pixels = np.cumsum([resolution(step, total, stages) ** 2 for step in range(total)])
    return pixels / pixels[-1]
