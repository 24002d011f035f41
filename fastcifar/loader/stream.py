"""The loader that reads through FFCV: one worker thread reads and decodes a few batches ahead.

Its own memory does not grow with the data set. The operating system caches the file and shares it between processes.
"""

import threading
from collections.abc import Generator
from pathlib import Path

import numpy as np
import torch

from fastcifar.augment.transform import Transform
from fastcifar.data.checks import file_identity
from fastcifar.data.prepared import Split, load_manifest, validated_beton
from fastcifar.errors import UserError
from fastcifar.loader.base import Loader, RawRead
from fastcifar.loader.ffcv_guard import FfcvFile
from fastcifar.loader.options import LoaderOptions


class StreamLoader(Loader):
    """Checks the file when opened and hands it to FFCV at the first batch. Arguments and errors: `open_loader`."""

    def __init__(self, folder: Path, split: Split, transform: Transform, options: LoaderOptions) -> None:
        super().__init__(load_manifest(folder).splits[split].samples, transform, options)
        self._path = validated_beton(folder, split)
        self._identity = file_identity(self._path)
        self._file: FfcvFile | None = None
        self._file_lock = threading.Lock()

    def _read(self, reads: list[np.ndarray]) -> Generator[RawRead]:
        with self._ffcv_file().read(np.concatenate(reads)) as ffcv_batches:
            for samples, (images, labels) in zip(reads, ffcv_batches, strict=True):
                # FFCV reuses this memory. The labels are copied here; the transform writes the images elsewhere.
                yield RawRead(images, np.arange(len(images)), samples, torch.from_numpy(labels[:, 0].copy()))

    def _ffcv_file(self) -> FfcvFile:
        with self._file_lock:
            self._check_open()
            if self._file is None:
                file = FfcvFile(self._path, self._max_read)
                # FFCV crashes on a damaged file, so this must be the very file that was checked.
                if file.identity != self._identity or file.samples != self.samples:
                    file.close()
                    raise UserError(f"{self._path} was changed after it was opened: open the loader again")
                self._file = file
            return self._file

    def close(self) -> None:
        """Ends every worker thread and closes the file; see `Loader.close`."""
        super().close()
        with self._file_lock:
            if self._file is not None:
                self._file.close()
                self._file = None
