"""Both loaders with the GPU's kernel: raw images go to GPU memory and the host never looks at a pixel.

Everything is queued on torch's current stream, which must be the same for all batches of an epoch.
"""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fastcifar.augment.transform import Transform
from fastcifar.augment.transform_cuda import CudaTransform
from fastcifar.loader.base import RawBatches
from fastcifar.loader.pinned_buffers import pinned_slots, to_device
from fastcifar.loader.resident import ResidentLoader
from fastcifar.loader.stream import StreamLoader


class CudaResidentLoader(ResidentLoader):
    """Holds the split in GPU memory; an epoch costs one copy of its order. Arguments and errors: `open_loader`."""

    def __init__(
        self,
        folder: Path,
        split: Literal["train", "test"],
        transform: Transform,
        *,
        device: torch.device,
        **options: Any,
    ) -> None:
        self._device = device
        super().__init__(folder, split, transform, **options)
        self._stored, self._targets = to_device(self._images, device), to_device(self._labels, device)
        self._let_go()

    def _on_device(self, transform: Transform) -> Callable[..., Tensor]:
        return CudaTransform(transform, self._device)

    def _read(self, reads: list[np.ndarray]) -> Generator[RawBatches]:
        for samples in _order(reads, self._device):
            yield RawBatches(self._stored, samples, samples, self._targets.index_select(0, samples))

    def close(self) -> None:
        """Lets the images go; see `Loader.close`."""
        super().close()
        self._stored, self._targets = self._stored[:0].clone(), self._targets[:0].clone()


class CudaStreamLoader(StreamLoader):
    """Copies FFCV's batches to the GPU while earlier ones are trained on. Arguments and errors: `open_loader`."""

    def __init__(
        self,
        folder: Path,
        split: Literal["train", "test"],
        transform: Transform,
        *,
        device: torch.device,
        **options: Any,
    ) -> None:
        self._device = device
        super().__init__(folder, split, transform, **options)

    def _on_device(self, transform: Transform) -> Callable[..., Tensor]:
        return CudaTransform(transform, self._device)

    def _read(self, reads: list[np.ndarray]) -> Generator[RawBatches]:
        slots = pinned_slots(self._largest_read, self._device)
        rows = torch.arange(self._largest_read, device=self._device)
        with self._ffcv_file().read(np.concatenate(reads)) as ffcv_batches:
            for samples, (images, labels) in zip(_order(reads, self._device), ffcv_batches, strict=True):
                moved, targets = slots.move(images, labels[:, 0])
                yield RawBatches(moved, rows[: len(samples)], samples, targets)


def _order(reads: list[np.ndarray], device: torch.device) -> tuple[Tensor, ...]:
    """The sample indices of all reads, moved in one copy."""
    return to_device(np.concatenate(reads), device).split([len(read) for read in reads])
