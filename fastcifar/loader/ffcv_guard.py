"""Makes FFCV's Loader safe: errors reach the caller, threads end, thread counts stay, nothing is compiled twice.

What FFCV 1.0.2 does, and what is done about it here:

- Its iterator hangs on an error and after the end, and an abandoned one never ends. `worker_thread.py` replaces it.
- Importing it, building a Loader, starting an epoch and the worker each set the thread counts of torch and numba.
  `_thread_counts_restored` puts them back, and `WorkerEpoch` does not set them.
- Building a Loader compiles a file reader and for that marks numba's type of 1-D uint8 arrays as read-only in the
  whole process. Nothing calls this reader, so `_NoReader` leaves it out.
- Every Loader compiles its reader and its decoders again (0.6 s). Here each decoder is compiled once per process. They
  are not parallel, so they can run beside a parallel kernel under every numba threading layer.
- It maps the file, and truncating a mapped file kills the process. Here every image is read by `pread`, and a file that
  was written to since it was opened raises an error instead of giving wrong images.

FFCV does not check what it reads: only pass files that `validated_beton` has accepted.
"""

import contextlib
import functools
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import torch

from fastcifar.data.checks import FileIdentity, file_identity
from fastcifar.data.cifar10 import IMAGE_SIZE
from fastcifar.errors import UserError
from fastcifar.loader.positional_read import read_images
from fastcifar.loader.worker_thread import WorkerEpoch

BATCHES_AHEAD = 2
"""Reads that the worker may be ahead of the consumer. Each has 3 MB."""
FIELDS = ("image", "label")

_ffcv_lock = threading.Lock()


@contextlib.contextmanager
def _thread_counts_restored() -> Iterator[None]:
    numba_threads, torch_threads = numba.get_num_threads(), torch.get_num_threads()
    try:
        yield
    finally:
        numba.set_num_threads(numba_threads)
        torch.set_num_threads(torch_threads)


@contextlib.contextmanager
def _ffcv_imported() -> Iterator[None]:
    """Allows FFCV to be used in the block, and keeps its own thread setting as other users of FFCV have set it."""
    with _ffcv_lock, _thread_counts_restored():
        try:
            from ffcv.pipeline.compiler import Compiler
        except (ImportError, OSError) as error:  # OSError: a shared library that is missing or does not fit
            raise UserError(f"FFCV cannot be imported ({error}): install it, or use the resident loader") from error

        threads = Compiler.num_threads
        try:
            yield
        finally:
            Compiler.num_threads = threads


def check_ffcv() -> None:
    """Imports FFCV without side effects. Raises UserError if it cannot be imported."""
    with _ffcv_imported():
        pass


@functools.cache
def _decoders() -> tuple[Callable[..., np.ndarray], ...]:
    """One for each of FIELDS: ours for images, FFCV's for labels, compiled without parallel code."""
    from ffcv.fields.decoders import IntDecoder

    return read_images, numba.njit(nogil=True)(IntDecoder().generate_code())


class FfcvFile:
    """One beton, whose samples FFCV reads in any order; see `read`."""

    def __init__(self, path: Path, batch_size: int) -> None:
        """Raises UserError if FFCV cannot read the file, or if it does not hold raw 32x32 images and labels."""
        self.path = path
        self._epochs: set[WorkerEpoch] = set()
        self._lock, self._closed = threading.Lock(), False
        self._descriptor = os.open(path, os.O_RDONLY)
        self._close_descriptor = weakref.finalize(self, os.close, self._descriptor)
        self._close_descriptor.atexit = False  # a worker may read until the process ends
        self.identity = file_identity(self._descriptor)
        with _ffcv_imported():
            try:
                self._loader = _ffcv_loader(path, batch_size)
            except (AssertionError, IndexError, KeyError, TypeError, ValueError) as error:
                raise UserError(f"FFCV cannot read {path} ({error}): prepare the data again") from error
        self._loader.memory_manager.context = _safe_classes().OpenFile(self._descriptor, self.identity)

    @property
    def samples(self) -> int:
        """Samples in the file."""
        return int(self._loader.reader.num_samples)

    @contextlib.contextmanager
    def read(self, order: np.ndarray) -> Iterator[WorkerEpoch]:
        """An iterator over batches of the samples `order`, int64 (n,): images uint8 (b, 32, 32, 3), labels (b, 1).

        Both are views of a ring of buffers and valid until the following `next`. Leaving the block ends the thread.
        The iterator raises RunFailedError if reading fails. Raises IndexError unless `order` lies in [0, samples),
        which FFCV does not check, and UserError if the file is closed.
        """
        if len(order) and not 0 <= order.min() <= order.max() < self.samples:
            raise IndexError(f"samples {order.min()} to {order.max()} are not all in {self.path} of {self.samples}")
        with self._lock:
            if self._closed:
                raise UserError(f"{self.path} was closed by another thread: open the loader again")
            epoch = _safe_classes().Epoch(self._loader, order.astype(np.uint64))
            self._epochs.add(epoch)
        try:
            yield epoch
        finally:
            epoch.close()
            self._epochs.discard(epoch)

    def close(self) -> None:
        """Ends every iterator and closes the file."""
        with self._lock:  # no epoch starts after this block
            self._closed = True
        for epoch in tuple(self._epochs):
            epoch.close()
        self._close_descriptor()


def _ffcv_loader(path: Path, batch_size: int) -> Any:
    """FFCV's Loader of `path`, with its generated code replaced by one stage that calls `_decoders`."""
    from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
    from ffcv.loader import OrderOption

    loader = _safe_classes().Loader(
        str(path),
        batch_size=batch_size,
        num_workers=1,
        os_cache=True,
        order=OrderOption.SEQUENTIAL,
        seed=0,  # else FFCV draws one from NumPy's global generator
        pipelines={"image": [SimpleRGBImageDecoder()], "label": [IntDecoder()]},
        drop_last=False,
        batches_ahead=BATCHES_AHEAD,
    )
    _check_fields(loader.reader)
    nodes = [loader.graph.leaf_nodes[name].id for name in FIELDS]

    def decode(batch_indices: np.ndarray, metadata: np.ndarray, storage_state: int, **buffers: Any) -> list:
        decoded = [
            decoder(batch_indices, buffers[f"memory_{node}"], metadata[f"f{field}"], storage_state)
            for field, (decoder, node) in enumerate(zip(_decoders(), nodes, strict=True))
        ]
        loader.memory_manager.context.check()
        return decoded

    loader.code = [(decode, nodes)], nodes
    return loader


def _check_fields(reader: Any) -> None:
    """Raises ValueError unless the file has the fields FIELDS, and its images are raw and of 32x32 pixels."""
    from ffcv.fields.rgb_image import IMAGE_MODES

    if tuple(reader.field_names) != FIELDS:
        raise ValueError(f"its fields are {', '.join(reader.field_names)}, not {', '.join(FIELDS)}")
    images = reader.metadata["f0"]
    if (images["mode"] != IMAGE_MODES["raw"]).any():
        raise ValueError("its images are compressed")
    sizes = {(int(h), int(w)) for h, w in np.unique(images[["height", "width"]])}
    if sizes != {(IMAGE_SIZE, IMAGE_SIZE)}:
        raise ValueError(f"its images are of {sorted(sizes)} pixels, not {IMAGE_SIZE}x{IMAGE_SIZE}")


class _NoReader:
    """A mixin that goes before FFCV's Loader and keeps its memory manager from compiling a reader."""

    @property
    def memory_manager(self) -> Any:
        return self._memory_manager

    @memory_manager.setter
    def memory_manager(self, manager: Any) -> None:
        manager.compile_reader = lambda: None  # FFCV calls it right after this assignment
        self._memory_manager = manager


@functools.cache
def _safe_classes() -> SimpleNamespace:
    """Safe subclasses of FFCV's Loader, EpochIterator and MemoryContext. Importing FFCV takes seconds, hence late."""
    from ffcv.loader import Loader
    from ffcv.loader.epoch_iterator import EpochIterator
    from ffcv.memory_managers.base import MemoryContext

    # the property replaces FFCV's attribute on purpose
    class SafeLoader(_NoReader, Loader):  # pyright: ignore[reportIncompatibleVariableOverride]
        """FFCV's Loader without its reader."""

    class Epoch(WorkerEpoch, EpochIterator):  # type: ignore[misc]
        """FFCV's EpochIterator with our worker and queue."""

    class OpenFile(MemoryContext):
        """What the decoders read from: a file descriptor instead of a memory map."""

        def __init__(self, descriptor: int, opened: FileIdentity) -> None:
            self._descriptor, self._opened = descriptor, opened

        @property
        def state(self) -> int:
            return self._descriptor

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def check(self) -> None:
            """Raises OSError if the file was written to since it was opened, which no read would notice."""
            if file_identity(self._descriptor) != self._opened:
                raise OSError("the file was changed while it was being read; open the loader again")

    return SimpleNamespace(Loader=SafeLoader, Epoch=Epoch, OpenFile=OpenFile)
