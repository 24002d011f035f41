"""Both loaders for a device with memory of its own: the host moves raw bytes, and the device makes the batches.

All work of the device is queued on torch's current stream, which must stay the same during an epoch.
"""

from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastcifar.augment.transform import Transform
from fastcifar.augment.transform_device import DeviceTransform, default_transform
from fastcifar.augment.transform_torch import TorchTransform
from fastcifar.data.prepared import Split
from fastcifar.loader.base import RawRead
from fastcifar.loader.options import LoaderOptions
from fastcifar.loader.pinned_buffers import BufferRing, pinned_ring, to_device
from fastcifar.loader.resident import ResidentLoader
from fastcifar.loader.stream import StreamLoader


class DeviceResidentLoader(ResidentLoader):
    """Holds the split in the device's memory; an epoch copies its order alone. Arguments and errors: `open_loader`."""

    def __init__(self, folder: Path, split: Split, transform: Transform, options: LoaderOptions) -> None:
        super().__init__(folder, split, transform, options)
        # not pinned: to pin so much memory for one copy costs more than it saves
        arrays = torch.from_numpy(self._images), torch.from_numpy(self._labels)
        if options.storage is None:
            self.images, self.labels = (array.to(self._device) for array in arrays)
        else:
            self.images, self.labels = options.storage
            self.images.copy_(arrays[0])
            self.labels.copy_(arrays[1])
        self._release_arrays()

    @property
    def transform(self) -> DeviceTransform:
        """What makes the batches."""
        return self._device_transform

    def order(self, epoch: int) -> np.ndarray:
        """The samples of an epoch's batches, int64 (len(self) * batch_size,)."""
        return np.concatenate(self._plan.batches(epoch))

    def plain_images(self, count: int, transform: Transform) -> Tensor:
        """See `Loader.plain_images`."""
        self._check_open()
        samples = np.concatenate(self._plan.batches(0)[: -(-count // self.batch_size)])
        rows = to_device(samples, self._device)
        # tensor operations, because this happens once and another compiled kernel would take longer
        return TorchTransform(transform, self._device)(self.images, rows, rows, 0)

    def _on_device(self, transform: Transform) -> Callable[..., Tensor]:
        self._device_transform = _device_transform(transform, self._plan.options)
        return self._device_transform

    def _read(self, reads: list[np.ndarray]) -> Generator[RawRead]:
        for samples in _to_device_in_one_copy(reads, self._device):
            yield RawRead(self.images, samples, samples, self.labels.index_select(0, samples))

    def close(self) -> None:
        """See `Loader.close`."""
        super().close()
        self.images, self.labels = self.images[:0].clone(), self.labels[:0].clone()


class DeviceStreamLoader(StreamLoader):
    """Copies FFCV's batches to the device while it trains on earlier ones. Arguments and errors: `open_loader`."""

    def __init__(self, folder: Path, split: Split, transform: Transform, options: LoaderOptions) -> None:
        super().__init__(folder, split, transform, options)
        self._ring: BufferRing | None = None

    def _on_device(self, transform: Transform) -> Callable[..., Tensor]:
        return _device_transform(transform, self._plan.options)

    def _read(self, reads: list[np.ndarray]) -> Generator[RawRead]:
        with self._file_lock:
            if self._ring is None:  # one for all epochs: a new stream would not reuse the memory of an old one
                self._ring = pinned_ring(self._max_read, self._device)
        ring = self._ring
        rows = torch.arange(self._max_read, device=self._device)
        with self._ffcv_file().read(np.concatenate(reads)) as ffcv_batches:
            for samples, batch in zip(_to_device_in_one_copy(reads, self._device), ffcv_batches, strict=True):
                images, labels = ring.to_device(batch[0], batch[1][:, 0])
                yield RawRead(images, rows[: len(samples)], samples, labels)


def _device_transform(transform: Transform, options: LoaderOptions) -> DeviceTransform:
    device = options.device or torch.device("cpu")
    kind = options.transform or default_transform(device)
    assert kind is not None, "a CPU has a loader of its own"
    return kind(transform, device)


def _to_device_in_one_copy(reads: list[np.ndarray], device: torch.device) -> tuple[Tensor, ...]:
    return to_device(np.concatenate(reads), device).split([len(read) for read in reads])
