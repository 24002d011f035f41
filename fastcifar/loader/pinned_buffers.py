"""How batches in memory that will be written to again get to a GPU: through pinned slots, used in turn.

A copy from pinned memory is only queued when the call returns. A slot is therefore filled again no sooner than its
last copy has run, and it is the host that waits for that: an order among streams does not keep the host from writing.
"""

from collections.abc import Sequence
from itertools import cycle
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

SLOTS = 3
"""One is filled while another is copied and the third waits for the GPU; 3 MB each."""


class Slot(Protocol):
    """Host memory for one batch, and the way from it to the device."""

    def wait(self) -> None:
        """Returns when the last `send` no longer reads the slot's memory; at once before the first."""
        ...

    def send(self, images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
        """Copies both into the slot's memory, starts their way to the device and returns what will be there."""
        ...


class SlotRing:
    """Slots in turn."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._next = cycle(slots)

    def move(self, images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
        """`images` uint8 (b, 32, 32, 3) and `labels` int64 (b,) on the device; both may be overwritten afterwards."""
        slot = next(self._next)
        slot.wait()
        return slot.send(images, labels)


class PinnedSlot:
    """A `Slot` of pinned memory whose copies run on a stream of their own, beside the training."""

    def __init__(self, batch_size: int, device: torch.device, stream: torch.cuda.Stream) -> None:
        self._host = (
            torch.empty((batch_size, 32, 32, 3), dtype=torch.uint8, pin_memory=True),
            torch.empty(batch_size, dtype=torch.int64, pin_memory=True),
        )
        self._device, self._stream = device, stream
        self._copied = torch.cuda.Event()

    def wait(self) -> None:
        """See `Slot.wait`."""
        self._copied.synchronize()

    def send(self, images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
        """See `Slot.send`; the current stream waits for the copy, the host does not."""
        current = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            on_device = (self._start(0, images), self._start(1, labels))
            self._copied.record(self._stream)
        current.wait_event(self._copied)
        for tensor in on_device:  # their memory is the side stream's, which would take it back too early
            tensor.record_stream(current)
        return on_device

    def _start(self, which: int, array: np.ndarray) -> Tensor:
        part = self._host[which][: len(array)]
        part.numpy()[...] = array
        return part.to(self._device, non_blocking=True)


def pinned_slots(batch_size: int, device: torch.device) -> SlotRing:
    """A ring for batches of up to `batch_size`."""
    stream = torch.cuda.Stream(device)
    return SlotRing([PinnedSlot(batch_size, device, stream) for _ in range(SLOTS)])


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy of `array` on the GPU, queued on the current stream; `array` may be overwritten afterwards."""
    # torch keeps the pinned memory from other uses until the copy has run
    return torch.from_numpy(array).pin_memory().to(device, non_blocking=True)
