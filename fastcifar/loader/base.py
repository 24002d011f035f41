"""What a loader is, and all that both loaders do alike; a loader itself only adds how raw images are read.

The order, the augmentation and the hand-over are here once, so two loaders cannot come to differ in them.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from fastcifar.augment.buffer_pool import ALIGNMENT
from fastcifar.augment.transform import Transform
from fastcifar.errors import UserError
from fastcifar.loader.order import EpochPlan

FULL_SIZE = 32
TOGETHER = 1000
"""Images read and made by one call if batches are smaller: waking threads takes as long as a hundred images."""
SMALLEST_TYPE = 2  # bytes of a value in a batch
Array = np.ndarray | Tensor
"""Tensors for loaders that deliver on a GPU."""


class Loader(Protocol):
    """Batches of augmented images and their labels, epoch by epoch; also a context manager that closes itself."""

    @property
    def samples(self) -> int:
        """Samples in the split."""
        ...

    @property
    def batch_size(self) -> int:
        """Samples in every batch but, without `drop_last`, the last."""
        ...

    def __len__(self) -> int:
        """Batches in an epoch."""
        ...

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of epoch `number` from batch `start` on; `start` is a jump, nothing is read and thrown away.

        A batch is (images, labels): images as the transform makes them, (b, 3, size, size) in channels_last, and
        labels int64 (b,), on the device. Nothing writes to their memory again, so batches may be kept; one that is
        kept may keep its neighbours' memory with it.
        Any number of epochs may be under way at once; leaving one early, in any way, ends what runs for it.

        Raises UserError for a `start` outside [0, len(self)], a `number` outside [0, 2**64) and a closed loader;
        RunFailedError, out of the iteration, if reading fails.
        """
        ...

    def plain_images(self, count: int, transform: Transform) -> Tensor:
        """About `count` images, (n, 3, 32, 32), of the first batches of epoch 0, by a transform of the caller's.

        For what a network takes from the training set before it is trained; as many as there are, if fewer.
        """
        ...

    def close(self) -> None:
        """Ends every epoch under way and lets the data go; closing twice is fine."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class RawBatches(NamedTuple):
    """Batches as they are stored, all on the device that the loader delivers on; valid until the next are read."""

    images: Array  # uint8 (n, 32, 32, 3); n is that of the batches, or the whole set
    rows: Array  # int64 (b,): where in `images` the images of the batches are
    samples: Array  # int64 (b,): their indices in the data set
    labels: Tensor  # int64 (b,), fresh memory


class BatchLoader(ABC):
    """The part of a loader that does not depend on where the images come from."""

    def __init__(self, plan: EpochPlan, transform: Transform, size_at: Callable[[int], int] | None) -> None:
        self._plan = plan
        self._together = max(1, TOGETHER // plan.batch_size)
        self._largest_read = min(self._together * plan.batch_size, plan.samples)
        self._transform = self._on_device(transform)
        self._size_at = size_at
        self._closed = False

    @property
    def samples(self) -> int:
        """Samples in the split."""
        return self._plan.samples

    @property
    def batch_size(self) -> int:
        """Samples in every batch but, without `drop_last`, the last."""
        return self._plan.batch_size

    def __len__(self) -> int:
        return len(self._plan)

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch; see `Loader.epoch`."""
        self._check_open()
        return self._deliver(number, start, self._plan.batches(number, start))

    def plain_images(self, count: int, transform: Transform) -> Tensor:
        """Images by another transform; see `Loader.plain_images`."""
        self._check_open()
        reads = self._reads(self._plan.batches(0)[: -(-count // self.batch_size)])
        apply = self._on_device(transform)
        with contextlib.closing(self._read([np.concatenate(read) for read in reads])) as raw_reads:
            return torch.cat([apply(raw.images, raw.rows, raw.samples, 0) for raw in raw_reads])

    def _reads(self, batches: list[np.ndarray]) -> list[list[np.ndarray]]:
        return [batches[i : i + self._together] for i in range(0, len(batches), self._together)]

    def _deliver(self, number: int, start: int, batches: list[np.ndarray]) -> Iterator[tuple[Tensor, Tensor]]:
        step = number * len(self) + start
        reads = self._reads(batches)
        with contextlib.closing(self._read([np.concatenate(read) for read in reads])) as raw_reads:
            for read in reads:
                self._check_open()
                raw = next(raw_reads)
                sizes = [FULL_SIZE if self._size_at is None else self._size_at(step + i) for i in range(len(read))]
                step += len(read)
                for batch in self._cut(raw, read, sizes, number):
                    yield batch
                    self._check_open()

    def _cut(
        self, raw: RawBatches, batches: list[np.ndarray], sizes: list[int], epoch: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one read; those of the same size are made by one call."""
        done = 0
        for size, run in _runs_of_equal_size(batches, sizes):
            lengths = [len(batch) for batch in run]
            part = slice(done, done := done + sum(lengths))
            images = self._transform(raw.images, raw.rows[part], raw.samples[part], epoch, size)
            yield from zip(images.split(lengths), raw.labels[part].split(lengths), strict=True)

    def _on_device(self, transform: Transform) -> Callable[..., Tensor]:
        """The same transform for batches as `_read` makes them."""
        return transform

    @abstractmethod
    def _read(self, reads: list[np.ndarray]) -> Generator[RawBatches]:
        """Reads samples (int64 indices, at most `_largest_read`) in order; starts nothing before the first `next`."""

    def _check_open(self) -> None:
        if self._closed:
            raise UserError("this loader is closed: open another one with open_loader")

    def close(self) -> None:
        """Ends every epoch under way; a later `next` of one raises UserError."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _runs_of_equal_size(batches: list[np.ndarray], sizes: list[int]) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Neighbouring batches of one size in pixels, in order; all of them start at aligned addresses when made at once.

    So a batch's alignment never depends on its neighbours, and neither can arithmetic on it, to the last bit.
    """
    run: list[np.ndarray] = []
    for i, (batch, size) in enumerate(zip(batches, sizes, strict=True)):
        run.append(batch)
        aligned = len(batch) * size * size * 3 * SMALLEST_TYPE % ALIGNMENT == 0
        if not aligned or i + 1 == len(batches) or sizes[i + 1] != size:
            yield size, run
            run = []
