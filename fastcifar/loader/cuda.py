"""Both loaders with the GPU's kernel: raw pictures go to GPU memory and the host never looks at a pixel.

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
from fastcifar.loader.device_slots import pinned_slots, to_device
from fastcifar.loader.protocol import RawBatch
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
        self._pictures, self._targets = to_device(self._images, device), to_device(self._labels, device)
        self._let_go()

    def _on_device(self, transform: Transform) -> Callable[..., Tensor]:
        return CudaTransform(transform, self._device)

    def _read(self, batches: list[np.ndarray]) -> Generator[RawBatch]:
        for samples in _order(batches, self._device):
            yield RawBatch(self._pictures, samples, samples, self._targets.index_select(0, samples))

    def close(self) -> None:
        """Lets the pictures go; see `Loader.close`."""
        super().close()
        self._pictures, self._targets = self._pictures[:0].clone(), self._targets[:0].clone()


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

    def _read(self, batches: list[np.ndarray]) -> Generator[RawBatch]:
        largest = min(self.batch_size, self.samples)
        slots, rows = pinned_slots(largest, self._device), torch.arange(largest, device=self._device)
        with self._ffcv_file().read(np.concatenate(batches)) as ffcv_batches:
            for samples, (images, labels) in zip(_order(batches, self._device), ffcv_batches, strict=True):
                pictures, targets = slots.move(images, labels[:, 0])
                yield RawBatch(pictures, rows[: len(samples)], samples, targets)


def _order(batches: list[np.ndarray], device: torch.device) -> tuple[Tensor, ...]:
    """The sample indices of all batches, moved in one copy."""
    return to_device(np.concatenate(batches), device).split([len(batch) for batch in batches])
