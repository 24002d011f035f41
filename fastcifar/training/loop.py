"""The steps of a run, in order, starting at any of them. The caller decides what happens between them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from torch import Tensor

from fastcifar.loader.base import Loader
from fastcifar.models.hooks import before_step
from fastcifar.optim.rates import Rates, set_lr
from fastcifar.training.context import RunContext
from fastcifar.training.step import TrainStep
from fastcifar.training.steps import lr_scale


class Step(NamedTuple):
    """The result of one step; the tensors are 0-d and on the device."""

    number: int  # from 0
    rates: Rates  # that the step was taken with
    loss: Tensor
    num_correct: Tensor


class Steps(ABC):
    """How a run takes its steps: one after the other, from the batches of its loader."""

    def __init__(self, context: RunContext, train_step: TrainStep) -> None:
        self.context, self.train_step = context, train_step

    def start(self, loader: Loader) -> None:
        """Lets the network take statistics from the training images of `loader`; once, before the first step."""
        self.context.init_from_data(self.train_step.model, loader)

    @abstractmethod
    def batches(self, loader: Loader, epoch: int, start: int) -> Iterator[Any]:
        """The batches of an epoch from batch `start` on, in whatever form `take` needs them."""

    @abstractmethod
    def take(self, number: int, batch: Any) -> Step:
        """Takes step `number`; queues it if the device runs on its own."""


class EagerSteps(Steps):
    """Batches from the loader, and operations one after the other."""

    def batches(self, loader: Loader, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Steps.batches`."""
        return loader.epoch(epoch, start)

    def take(self, number: int, batch: tuple[Tensor, Tensor]) -> Step:
        """See `Steps.take`."""
        rates = set_lr(self.train_step.optimizer, lr_scale(self.context.config, number, self.context.total))
        loss, num_correct = self.train_step(*batch)
        return Step(number, rates, loss, num_correct)


def training_steps(steps: Steps, loader: Loader, first: int = 0) -> Iterator[Step]:
    """Trains from step `first` to the last and yields after each step.

    At the end of an epoch the caller may evaluate the network: the next epoch puts it back into training mode.
    """
    per_epoch, total, model = steps.context.steps_per_epoch, steps.context.total, steps.train_step.model
    for epoch in range(first // per_epoch, math.ceil(total / per_epoch)):
        model.train()
        start = max(first, epoch * per_epoch)
        batches = steps.batches(loader, epoch, start - epoch * per_epoch)
        for number, batch in enumerate(islice(batches, total - start), start):
            before_step(model, number, per_epoch)
            yield steps.take(number, batch)
