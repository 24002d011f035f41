"""The loader that reads through FFCV: one thread reads and decodes a few batches ahead.

Its own memory does not grow with the data set; pages of the file live in the operating system's cache, shared by all
processes that read it.
"""

import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from fastcifar.augment.transform import Transform
from fastcifar.data.prepared import load_manifest, sound_beton
from fastcifar.errors import UserError
from fastcifar.loader.base import BatchLoader, RawBatches
from fastcifar.loader.ffcv_guard import FfcvFile
from fastcifar.loader.order import EpochPlan
from fastcifar.loader.positional_read import identity


class StreamLoader(BatchLoader):
    """Checks the file when opened and hands it to FFCV at the first batch. See `open_loader` for arguments, errors."""

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
        samples = load_manifest(folder).splits[split].samples
        plan = EpochPlan(samples=samples, batch_size=batch_size, seed=seed, shuffle=shuffle, drop_last=drop_last)
        super().__init__(plan, transform, size_at)
        self._path = sound_beton(folder, split)
        self._checked = identity(self._path)
        self._file: FfcvFile | None = None
        self._opening = threading.Lock()

    def _read(self, reads: list[np.ndarray]) -> Generator[RawBatches]:
        with self._ffcv_file().read(np.concatenate(reads)) as ffcv_batches:
            for samples, (images, labels) in zip(reads, ffcv_batches, strict=True):
                # FFCV writes to this memory again, so the labels are copied; the transform copies the images
                yield RawBatches(images, np.arange(len(images)), samples, torch.from_numpy(labels[:, 0].copy()))

    def _ffcv_file(self) -> FfcvFile:
        with self._opening:
            self._check_open()
            if self._file is None:
                file = FfcvFile(self._path, self._largest_read)  # it sizes FFCV's buffers
                # FFCV crashes on a damaged file, so it must be the one that was checked
                if file.identity != self._checked or file.samples != self.samples:
                    file.close()
                    raise UserError(f"{self._path} was changed after it was opened: open the loader again")
                self._file = file
            return self._file

    def close(self) -> None:
        """Ends every worker thread and lets the file go; see `Loader.close`."""
        super().close()
        with self._opening:
            if self._file is not None:
                self._file.close()
                self._file = None
