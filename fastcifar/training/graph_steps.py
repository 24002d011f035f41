"""Steps as CUDA graphs: batch, learning rates, forward, backward, update and results in one replay.

The host launches one graph a step. Everything that changes from step to step is read from and written to the device's
memory: the position in the epoch's order, the learning rates of all steps, the losses. Each image size and each set of
trained parameters has a graph of its own; all are recorded before the run begins.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fastcifar.augment.transform_device import EPOCH, POSITION, DeviceTransform
from fastcifar.data.cifar10 import CHANNELS
from fastcifar.errors import UserError
from fastcifar.loader.base import Loader
from fastcifar.loader.pinned_buffers import to_device
from fastcifar.models.hooks import before_step
from fastcifar.optim.rates import prepare_for_capture, rates_at
from fastcifar.optim.state import state_tensors
from fastcifar.training.context import RunContext
from fastcifar.training.graph import Capture, Work
from fastcifar.training.loop import Step, Steps
from fastcifar.training.step import TrainStep
from fastcifar.training.steps import lr_scale


class Feed(ABC):
    """Where the batches of recorded steps come from."""

    @abstractmethod
    def begin(self, loader: Any, epoch: int, start: int) -> Iterator[None]:
        """What the host does in an epoch, from batch `start` on: yields before each step."""

    @abstractmethod
    def batch(self, size: int, step: Tensor) -> tuple[Tensor, Tensor]:
        """What is recorded: images (b, 3, size, size), channels_last, and labels (b,) of step number `step`, (1,)."""


class ResidentFeed(Feed):
    """Batches that the device makes from the set in its memory; the host copies an epoch's order in the one before."""

    def __init__(self, context: RunContext, transform: DeviceTransform, storage: tuple[Tensor, Tensor]) -> None:
        """`storage`: images and labels of the whole set, which a loader fills when a run begins."""
        self._total, self._per_epoch, self._count = context.total, context.steps_per_epoch, context.config.batch_size
        self._transform, self._storage = transform, storage
        order = torch.arange(self._per_epoch * self._count, device=transform.device)
        self._order = order.repeat(2)  # of two epochs; these are sets of their own until a run begins
        self._in_batch = torch.arange(self._count, device=transform.device)
        self._state = transform.new_state()
        self._copied: dict[int, tuple[Any, int]] = {}  # loader and epoch of each half of the order

    def begin(self, loader: Any, epoch: int, start: int) -> Iterator[None]:
        """See `Feed.begin`; `loader` is a DeviceResidentLoader."""
        self._state.copy_(loader.transform.new_state())  # with the run's seed
        self._copy_order(loader, epoch)
        for number in range(start, self._per_epoch):
            yield
            if number == (start + self._per_epoch) // 2 and (epoch + 1) * self._per_epoch < self._total:
                self._copy_order(loader, epoch + 1)  # takes milliseconds, in which the device has work

    def batch(self, size: int, step: Tensor) -> tuple[Tensor, Tensor]:
        """See `Feed.batch`."""
        epoch, position = self._state[EPOCH : EPOCH + 1], self._state[POSITION : POSITION + 1]
        torch.floor_divide(step, self._per_epoch, out=epoch)
        torch.remainder(step, 2 * self._per_epoch, out=position).mul_(self._count)
        transform = self._transform
        nhwc = torch.empty((self._count, size, size, CHANNELS), dtype=transform.dtype, device=transform.device)
        transform.into(nhwc, self._storage[0], self._order, self._order, self._state)
        rows = self._order.index_select(0, position + self._in_batch)
        return nhwc.permute(0, 3, 1, 2), self._storage[1].index_select(0, rows)

    def _copy_order(self, loader: Any, epoch: int) -> None:
        half = epoch % 2
        if self._copied.get(half) != (loader, epoch):
            order = to_device(loader.order(epoch), self._transform.device)
            self._order[half * len(order) : (half + 1) * len(order)].copy_(order)
            self._copied[half] = loader, epoch


class CopyFeed(Feed):
    """Batches of any loader, copied to where the recorded steps read them."""

    def __init__(self, context: RunContext) -> None:
        count, runtime = context.config.batch_size, context.runtime
        where = {"device": runtime.device, "dtype": runtime.dtype, "memory_format": torch.channels_last}
        self._images = {size: torch.empty((count, CHANNELS, size, size), **where).normal_() for size in context.sizes}
        self._labels = torch.randint(context.classes, (count,), device=runtime.device)

    def begin(self, loader: Loader, epoch: int, start: int) -> Iterator[None]:
        """See `Feed.begin`."""
        for images, labels in loader.epoch(epoch, start):
            self._images[images.shape[2]].copy_(images)
            self._labels.copy_(labels)
            yield

    def batch(self, size: int, step: Tensor) -> tuple[Tensor, Tensor]:
        """See `Feed.batch`."""
        return self._images[size], self._labels


class GraphSteps(Steps):
    """Replays; the results stay on the device until someone reads them."""

    def __init__(self, context: RunContext, train_step: TrainStep, feed: Feed, capture: Capture) -> None:
        """Records all graphs of the run, which changes network and optimiser: the caller sets them back.

        Raises what `capture` raises.
        """
        super().__init__(context, train_step)
        device, total, optimizer = context.runtime.device, context.total, train_step.optimizer
        self._feed = feed
        self._fresh = {key: tensor.clone() for key, tensor in state_tensors(optimizer).items()}
        self._learning = [parameter.requires_grad for parameter in train_step.model.parameters()]
        self._lr = prepare_for_capture(optimizer, device)
        self._rates = [rates_at(optimizer, lr_scale(context.config, number, total)) for number in range(total)]
        self._lr_of_steps = torch.tensor([list(rates.lr.values()) for rates in self._rates]).to(device)
        self._step = torch.zeros(1, dtype=torch.int64, device=device)
        self._numbers = torch.arange(total, device=device)
        self._losses = torch.zeros(total, device=device)
        self._num_correct = torch.zeros(total, dtype=torch.int64, device=device)
        self.firsts: list[int] = []
        """The first step of each graph."""
        self._replays = self._recorded(capture)
        self._addresses = self._addresses_now()

    def reset(self, initial: nn.Module) -> None:
        """Sets the network to `initial` and the optimiser to the state before its first step.

        In place, because the graphs have their addresses. Both may be on any device.
        """
        model, optimizer = self.train_step.model, self.train_step.optimizer
        optimizer.zero_grad()
        with torch.no_grad():
            for tensor, value in zip(model.state_dict().values(), initial.state_dict().values(), strict=True):
                tensor.copy_(value)
            for key, tensor in state_tensors(optimizer).items():
                # what a step creates starts at zero; where that is not so, the check of the steps fails
                tensor.copy_(self._fresh[key]) if key in self._fresh else tensor.zero_()
        for parameter, learns in zip(model.parameters(), self._learning, strict=True):
            parameter.requires_grad_(learns)

    def start(self, loader: Loader) -> None:
        """See `Steps.start`; UserError if the network replaced a tensor, which the graphs would not see."""
        super().start(loader)
        moved = [name for name, at in self._addresses_now().items() if self._addresses.get(name) != at]
        if moved:
            raise UserError(f"init_from_data replaces {moved[0]}; change it in place, by copy_, or use --no-graph")

    def _addresses_now(self) -> dict[str, int]:
        return {name: tensor.data_ptr() for name, tensor in self.train_step.model.state_dict().items()}

    def rewind(self, number: int) -> None:
        """Makes `number` the next step."""
        self._step.fill_(number)

    def eager_batch(self, number: int) -> tuple[Tensor, Tensor]:
        """The batch of step `number`, not recorded; for checks."""
        self.rewind(number)
        return self._feed.batch(self.context.image_size(number), self._step)

    def batches(self, loader: Loader, epoch: int, start: int) -> Iterator[None]:
        """See `Steps.batches`."""
        self.rewind(epoch * self.context.steps_per_epoch + start)
        return self._feed.begin(loader, epoch, start)

    def take(self, number: int, batch: None) -> Step:
        """See `Steps.take`."""
        self._replays[number]()
        return Step(number, self._rates[number], self._losses[number], self._num_correct[number])

    def _recorded(self, capture: Capture) -> list[Work]:
        """The replay of every step."""
        context, model = self.context, self.train_step.model
        graphs: dict[tuple[int, tuple[bool, ...]], Work] = {}
        replays: list[Work] = []
        model.train()
        for number in range(context.total):
            before_step(model, number, context.steps_per_epoch)
            key = context.image_size(number), tuple(parameter.requires_grad for parameter in model.parameters())
            if key not in graphs:
                self.rewind(0)
                graphs[key] = capture(partial(self._work, key[0]))
                self.firsts.append(number)
            replays.append(graphs[key])
        return replays

    def _work(self, size: int) -> None:
        self._lr.copy_(self._lr_of_steps.index_select(0, self._step).view(-1))
        loss, num_correct = self.train_step(*self._feed.batch(size, self._step))
        # not index_copy_, which sorts where only deterministic operations are allowed
        is_now = self._numbers == self._step
        torch.where(is_now, loss, self._losses, out=self._losses)
        torch.where(is_now, num_correct, self._num_correct, out=self._num_correct)
        self._step.add_(1)
