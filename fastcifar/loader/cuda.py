"""Both loaders for a CUDA device: the host moves raw bytes, and the GPU's kernel makes the batches.

All GPU work is queued on torch's current stream, which must stay the same during an epoch.
"""

from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastcifar.augment.transform import Transform
from fastcifar.augment.transform_cuda import CudaTransform
from fastcifar.data.prepared import Split
from fastcifar.loader.base import RawRead
from fastcifar.loader.options import LoaderOptions
from fastcifar.loader.pinned_buffers import pinned_ring, to_device
from fastcifar.loader.resident import ResidentLoader
from fastcifar.loader.stream import StreamLoader


class CudaResidentLoader(ResidentLoader):
    """Holds the split in GPU memory. An epoch copies only its order to the GPU. Arguments and errors: `open_loader`."""

    def __init__(self, folder: Path, split: Split, transform: Transform, options: LoaderOptions) -> None:
        super().__init__(folder, split, transform, options)
        self._gpu_images, self._gpu_labels = (to_device(part, self._device) for part in (self._images, self._labels))
        self._release_arrays()

    def _on_device(self, transform: Transform) -> Callable[..., Tensor]:
        return CudaTransform(transform, self._device)

    def _read(self, reads: list[np.ndarray]) -> Generator[RawRead]:
        for samples in _to_device_in_one_copy(reads, self._device):
            yield RawRead(self._gpu_images, samples, samples, self._gpu_labels.index_select(0, samples))

    def close(self) -> None:
        """See `Loader.close`."""
        super().close()
        self._gpu_images, self._gpu_labels = self._gpu_images[:0].clone(), self._gpu_labels[:0].clone()


class CudaStreamLoader(StreamLoader):
    """Copies FFCV's batches to the GPU while it trains on earlier ones. Arguments and errors: `open_loader`."""

    def _on_device(self, transform: Transform) -> Callable[..., Tensor]:
        return CudaTransform(transform, self._device)

    def _read(self, reads: list[np.ndarray]) -> Generator[RawRead]:
        ring = pinned_ring(self._max_read, self._device)
        rows = torch.arange(self._max_read, device=self._device)
        with self._ffcv_file().read(np.concatenate(reads)) as ffcv_batches:
            for samples, batch in zip(_to_device_in_one_copy(reads, self._device), ffcv_batches, strict=True):
                images, labels = ring.to_device(batch[0], batch[1][:, 0])
                yield RawRead(images, rows[: len(samples)], samples, labels)


def _to_device_in_one_copy(reads: list[np.ndarray], device: torch.device) -> tuple[Tensor, ...]:
    return to_device(np.concatenate(reads), device).split([len(read) for read in reads])
