"""FFCV's Loader made safe: errors surface, threads end, thread counts stay, nothing is compiled twice.

What FFCV 1.0.2 does on its own, and what is done about it here:

- Its iterator hangs on an error and after the end, and never ends when abandoned. `hand_over.py` replaces that part.
- Importing it, building a Loader, starting an epoch and the worker each set the thread counts of torch and numba.
  `_state_kept` puts them back, and `WorkerEpoch` does not set them.
- Building a Loader marks numba's type of 1-D uint8 arrays as read-only for the whole process, to compile a function
  that reads the file. `_NoReader` leaves that out, as nothing calls it.
- Every Loader compiles that and its decoders anew (0.6 s). Here there is one of each, compiled once a process, without
  threads of their own, so that they can run beside a parallel kernel whatever numba's threading layer is.
- It maps the file, and a map of a file that is cut short ends the process. Here every image is read by `pread`, and a
  file that was written to since it was opened is an error instead of other images.

FFCV does not check what it reads: hand in only files that `sound_beton` has passed.
"""

import contextlib
import functools
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch

from fastcifar.errors import UserError
from fastcifar.loader.positional_read import Identity, identity, read_images
from fastcifar.loader.worker_thread import WorkerEpoch

BATCHES_AHEAD = 2
"""Reads the worker may be ahead; 3 MB each."""
FIELDS = ("image", "label")

_building = threading.Lock()


@contextlib.contextmanager
def _state_kept() -> Iterator[None]:
    """Puts back what FFCV changes for the whole process when it is imported and when a Loader is built."""
    numba_threads, torch_threads = numba.get_num_threads(), torch.get_num_threads()
    try:
        yield
    finally:
        numba.set_num_threads(numba_threads)
        torch.set_num_threads(torch_threads)


@contextlib.contextmanager
def _ffcv() -> Iterator[None]:
    """FFCV may be imported and used in the block; its own thread setting is left to other users of FFCV as well."""
    with _building, _state_kept():
        try:
            from ffcv.pipeline.compiler import Compiler
        except (ImportError, OSError) as error:  # OSError: its libraries, or a libc it does not know
            raise UserError(f"FFCV cannot be imported ({error}): install it, or use the resident loader") from error

        threads = Compiler.num_threads
        try:
            yield
        finally:
            Compiler.num_threads = threads


def check_ffcv() -> None:
    """Imports FFCV and changes nothing by it; raises UserError where it cannot be imported."""
    with _ffcv():
        pass


@functools.cache
def _decoders() -> tuple[Callable[..., np.ndarray], ...]:
    """One for each of FIELDS: ours for images, FFCV's for labels, compiled without parallel code."""
    from ffcv.fields.decoders import IntDecoder

    return read_images, numba.njit(nogil=True)(IntDecoder().generate_code())


class _NoReader:
    """Mixed in before FFCV's Loader: the manager of its memory map compiles nothing that would read from it."""

    @property
    def memory_manager(self) -> Any:
        return self._memory_manager

    @memory_manager.setter
    def memory_manager(self, manager: Any) -> None:
        manager.compile_reader = lambda: None  # FFCV calls it right after this assignment
        self._memory_manager = manager


class FfcvFile:
    """One beton, read by FFCV in any order; see `read`."""

    def __init__(self, path: Path, batch_size: int) -> None:
        """Raises UserError if FFCV cannot make sense of the file or it does not hold 32x32 images and labels."""
        self.path = path
        self._epochs: set[WorkerEpoch] = set()
        self._beginning, self._closed = threading.Lock(), False
        self._descriptor = os.open(path, os.O_RDONLY)
        self._let_go = weakref.finalize(self, os.close, self._descriptor)
        self._let_go.atexit = False  # a worker may read to the very end; then the system closes it
        self.identity = identity(self._descriptor)
        with _ffcv():
            try:
                self._loader = _ffcv_loader(path, batch_size)
            except (AssertionError, IndexError, KeyError, TypeError, ValueError) as error:
                raise UserError(f"FFCV cannot read {path} ({error}): prepare the data again") from error
        self._loader.memory_manager.context = _ffcv_classes()[2](self._descriptor, self.identity)

    @property
    def samples(self) -> int:
        """Samples in the file."""
        return int(self._loader.reader.num_samples)

    @contextlib.contextmanager
    def read(self, order: np.ndarray) -> Iterator[WorkerEpoch]:
        """An iterator over batches of the samples `order` (int64 (n,)): images uint8 (b, 32, 32, 3), labels (b, 1).

        Both are views of a ring that are valid until the following `next`. On leaving the block its thread has ended.
        The iterator raises RunFailedError if reading fails. `order` must lie in [0, samples): FFCV does not check.
        """
        if len(order) and not 0 <= order.min() <= order.max() < self.samples:
            raise IndexError(f"samples {order.min()} to {order.max()} are not all in {self.path} of {self.samples}")
        with self._beginning:
            if self._closed:
                raise UserError(f"{self.path} was closed by another thread: open the loader again")
            epoch = _ffcv_classes()[1](self._loader, order.astype(np.uint64))
            self._epochs.add(epoch)
        try:
            yield epoch
        finally:
            epoch.close()
            self._epochs.discard(epoch)

    def close(self) -> None:
        """Ends every iterator and closes the file."""
        with self._beginning:  # an epoch that has begun is among those to end, and no other one begins
            self._closed = True
        for epoch in tuple(self._epochs):
            epoch.close()
        self._let_go()


def _ffcv_loader(path: Path, batch_size: int) -> Any:
    """FFCV's Loader of `path`, whose generated code is replaced by one stage of the shared decoders."""
    from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
    from ffcv.fields.rgb_image import IMAGE_MODES
    from ffcv.loader import OrderOption

    loader = _ffcv_classes()[0](
        str(path),
        batch_size=batch_size,
        num_workers=1,
        os_cache=True,
        order=OrderOption.SEQUENTIAL,
        seed=0,  # or it draws one from NumPy's global generator
        pipelines={"image": [SimpleRGBImageDecoder()], "label": [IntDecoder()]},
        drop_last=False,
        batches_ahead=BATCHES_AHEAD,
    )
    if tuple(loader.reader.field_names) != FIELDS:
        raise ValueError(f"its fields are {', '.join(loader.reader.field_names)}, not {', '.join(FIELDS)}")
    if set(loader.reader.metadata["f0"]["mode"]) != {IMAGE_MODES["raw"]}:
        raise ValueError("its images are compressed")
    sizes = {(int(h), int(w)) for h, w in np.unique(loader.reader.metadata["f0"][["height", "width"]])}
    if sizes != {(32, 32)}:
        raise ValueError(f"its images are of {sorted(sizes)} pixels, not 32x32")
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


@functools.cache
def _ffcv_classes() -> tuple[Any, type[WorkerEpoch], Any]:
    """FFCV's classes, made safe; only when first needed, as importing FFCV takes seconds."""
    from ffcv.loader import Loader
    from ffcv.loader.epoch_iterator import EpochIterator
    from ffcv.memory_managers.base import MemoryContext

    class SafeLoader(_NoReader, Loader):
        """FFCV's Loader without the marked type."""

    class Epoch(WorkerEpoch, EpochIterator):  # type: ignore[misc]
        """FFCV's EpochIterator with the safe hand-over."""

    class OpenFile(MemoryContext):
        """What FFCV's decoders read from: a descriptor in place of a map."""

        def __init__(self, descriptor: int, opened: Identity) -> None:
            self._descriptor, self._opened = descriptor, opened

        @property
        def state(self) -> int:
            return self._descriptor

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def check(self) -> None:
            """OSError if the file was written to since it was opened, which no read would notice."""
            if identity(self._descriptor) != self._opened:
                raise OSError("the file was changed while it was being read; open the loader again")

    return SafeLoader, Epoch, OpenFile
