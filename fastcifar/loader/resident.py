"""The loader that holds its split in memory (154 MB for the CIFAR-10 training set) and gathers batches by index."""

from collections.abc import Generator
from pathlib import Path

import numpy as np
import torch

from fastcifar.augment.transform import Transform
from fastcifar.data.prepared import Split, read_split
from fastcifar.loader.base import Loader, RawRead
from fastcifar.loader.options import LoaderOptions


class ResidentLoader(Loader):
    """Reads the whole split when opened. Uses no thread and no FFCV. Arguments and errors: `open_loader`."""

    def __init__(self, folder: Path, split: Split, transform: Transform, options: LoaderOptions) -> None:
        self._images, self._labels = read_split(folder, split)
        super().__init__(len(self._labels), transform, options)

    def _read(self, reads: list[np.ndarray]) -> Generator[RawRead]:
        for samples in reads:
            yield RawRead(self._images, samples, samples, torch.from_numpy(self._labels[samples]))

    def close(self) -> None:
        """See `Loader.close`."""
        super().close()
        self._release_arrays()

    def _release_arrays(self) -> None:
        self._images, self._labels = self._images[:0].copy(), self._labels[:0].copy()  # a view would keep the memory
