"""What a network may define beside `forward`; the trainer calls it where it is defined."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class InitFromGenerator(Protocol):
    """A network that initialises its own weights."""

    def init_from_generator(self, generator: torch.Generator) -> None:
        """Initialises all weights with numbers from `generator`, which is seeded by the run's seed."""
        ...


@runtime_checkable
class InitFromData(Protocol):
    """A network that takes statistics from the training images before the first step."""

    def init_from_data(self, images: Callable[[int], Tensor]) -> None:
        """`images(count)` gives at least `count` training images, or all: normalised float32 (n, 3, 32, 32).

        They are on the device of the training; the network itself may still be on the CPU. Change tensors in place, by
        `copy_`: a CUDA graph has their addresses.
        """
        ...


@runtime_checkable
class BeforeStep(Protocol):
    """A network that changes during a run, for example by freezing a layer."""

    def before_step(self, step: int, steps_per_epoch: int) -> None:
        """Sets what global step `step` requires, whichever step came before: a run may resume anywhere.

        A parameter that learns later must learn when the network is built: the optimiser gets those alone. A CUDA graph
        repeats Python numbers of its capture; what changes must be a tensor, changed in place.
        """
        ...


def before_step(model: object, step: int, steps_per_epoch: int) -> None:
    """Calls the network's hook of this name, if it has one."""
    if isinstance(model, BeforeStep):
        model.before_step(step, steps_per_epoch)
