"""The loader that holds its split in memory (154 MB for the CIFAR-10 training set) and gathers batches by index."""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from fastcifar.augment.transform import Transform
from fastcifar.data import prepared as beton
from fastcifar.loader.base import BatchLoader, RawBatches
from fastcifar.loader.order import EpochPlan


class ResidentLoader(BatchLoader):
    """Reads the whole split when opened; no thread, no FFCV. See `open_loader` for the arguments and errors."""

    def __init__(
        self,
        folder: Path,
        split: Literal["train", "test"],
        transform: Transform,
        *,
        batch_size: int,
        seed: int,
        shuffle: bool,
        drop_last: bool,
        size_at: Callable[[int], int] | None = None,
    ) -> None:
        self._images, self._labels = beton.read_split(folder, split)
        plan = EpochPlan(
            samples=len(self._labels), batch_size=batch_size, seed=seed, shuffle=shuffle, drop_last=drop_last
        )
        super().__init__(plan, transform, size_at)

    def _read(self, reads: list[np.ndarray]) -> Generator[RawBatches]:
        for samples in reads:
            yield RawBatches(self._images, samples, samples, torch.from_numpy(self._labels[samples]))

    def close(self) -> None:
        """Lets the images go; see `Loader.close`."""
        super().close()
        self._let_go()

    def _let_go(self) -> None:
        self._images, self._labels = self._images[:0].copy(), self._labels[:0].copy()  # a view would keep the memory
