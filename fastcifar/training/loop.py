"""The steps of a run, in order, from any of them on; what happens between them is their user's."""

import math
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from torch import Tensor

from fastcifar.loader.base import Loader
from fastcifar.optim.schedules import one_cycle
from fastcifar.training.context import RunContext
from fastcifar.training.step import TrainStep


class Step(NamedTuple):
    """What one step did; the tensors are 0-d and on the device."""

    number: int  # from 0
    lr_scale: float  # of the peak learning rate
    loss: Tensor
    num_correct: Tensor


def training_steps(context: RunContext, step_once: TrainStep, loader: Loader, first: int = 0) -> Iterator[Step]:
    """Trains the network of `step_once` from step `first` to the last, and yields after each step.

    The network may be evaluated in between, at the end of an epoch: the next one puts it back into training mode.
    """
    config, per_epoch, total = context.config, context.steps_per_epoch, context.total
    peak = config.schedule.peak_epoch / config.epochs
    for epoch in range(first // per_epoch, math.ceil(total / per_epoch)):
        step_once.model.train()
        start = max(first, epoch * per_epoch)
        batches = loader.epoch(epoch, start - epoch * per_epoch)
        for number, (images, labels) in enumerate(islice(batches, total - start), start):
            lr_scale = one_cycle(number, total, peak, config.schedule)
            context.before_step(step_once.model, number)
            loss, num_correct = step_once(images, labels, lr_scale)
            yield Step(number, lr_scale, loss, num_correct)
