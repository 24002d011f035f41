"""The steps of a run, in order, starting at any of them. The caller decides what happens between them."""

import math
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

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


def training_steps(context: RunContext, train_step: TrainStep, loader: Loader, first: int = 0) -> Iterator[Step]:
    """Trains from step `first` to the last and yields after each step.

    At the end of an epoch the caller may evaluate the network: the next epoch puts it back into training mode.
    """
    config, per_epoch, total = context.config, context.steps_per_epoch, context.total
    for epoch in range(first // per_epoch, math.ceil(total / per_epoch)):
        train_step.model.train()
        start = max(first, epoch * per_epoch)
        batches = loader.epoch(epoch, start - epoch * per_epoch)
        for number, (images, labels) in enumerate(islice(batches, total - start), start):
            rates = set_lr(train_step.optimizer, lr_scale(config, number, total))
            before_step(train_step.model, number, per_epoch)
            loss, num_correct = train_step(images, labels)
            yield Step(number, rates, loss, num_correct)
