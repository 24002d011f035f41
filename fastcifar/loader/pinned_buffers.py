"""Copies batches from memory that will be overwritten to a GPU, through a ring of pinned buffers.

A copy from pinned memory is only queued when the call returns. A buffer may be filled again only after its last copy
has run, and the host must wait for that: ordering between CUDA streams does not hold back the host's own writes.
"""

import threading
from collections.abc import Sequence
from itertools import cycle

import numpy as np
import torch
from torch import Tensor

from fastcifar.data.cifar10 import IMAGE_SHAPE

RING_SIZE = 3
"""One buffer is being filled, one copied, and one waits for the GPU. Each has 3 MB."""


class PinnedBuffer:
    """Pinned host memory for one batch. Its copies run on a CUDA stream beside the training."""

    def __init__(self, batch_size: int, device: torch.device, stream: torch.cuda.Stream) -> None:
        self._images = torch.empty((batch_size, *IMAGE_SHAPE), dtype=torch.uint8, pin_memory=True)
        self._labels = torch.empty(batch_size, dtype=torch.int64, pin_memory=True)
        self._device, self._stream = device, stream
        self._copied = torch.cuda.Event()

    def wait(self) -> None:
        """Returns when the last `send` no longer reads the pinned memory; immediately before the first."""
        self._copied.synchronize()

    def send(self, images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
        """Fills the pinned memory, queues the copies and returns the tensors on the device.

        The current stream waits for the copies, the host does not.
        """
        current = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            on_device = self._copy(self._images, images), self._copy(self._labels, labels)
            self._copied.record(self._stream)
        current.wait_event(self._copied)
        for tensor in on_device:  # allocated on the side stream, which would otherwise reuse their memory too early
            tensor.record_stream(current)
        return on_device

    def _copy(self, pinned: Tensor, array: np.ndarray) -> Tensor:
        part = pinned[: len(array)]
        part.numpy()[...] = array
        return part.to(self._device, non_blocking=True)


class PlainBuffer:
    """Stands in for `PinnedBuffer` on a device without pinned memory: the host waits for each copy."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def wait(self) -> None:
        """Nothing to wait for."""

    def send(self, images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
        """Copies of both on the device."""
        return to_device(images, self._device), to_device(labels, self._device)


class BufferRing:
    """Buffers that are used one after the other."""

    def __init__(self, buffers: Sequence[PinnedBuffer | PlainBuffer]) -> None:
        self._buffers, self._lock = cycle(buffers), threading.Lock()

    def to_device(self, images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
        """`images` uint8 (b, 32, 32, 3) and `labels` int64 (b,) on the device; both may be overwritten afterwards."""
        with self._lock:  # of epochs in several threads
            buffer = next(self._buffers)
            buffer.wait()
            return buffer.send(images, labels)


def pinned_ring(batch_size: int, device: torch.device) -> BufferRing:
    """A ring for batches of up to `batch_size`."""
    if device.type != "cuda":
        return BufferRing([PlainBuffer(device)])
    stream = torch.cuda.Stream(device)
    return BufferRing([PinnedBuffer(batch_size, device, stream) for _ in range(RING_SIZE)])


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy of `array` on the device, queued on the current stream. `array` may be overwritten afterwards."""
    if device.type != "cuda":
        return torch.from_numpy(array.copy()).to(device)
    # torch does not reuse the pinned memory before the copy has run
    return torch.from_numpy(array).pin_memory().to(device, non_blocking=True)
