"""The interface of a loader and everything that both kinds share. A subclass only adds how raw images are read.

Order, augmentation and batching are implemented here once, so that the kinds cannot differ in them.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from fastcifar.augment.buffer_pool import ALIGNMENT
from fastcifar.augment.draws import BatchDraws
from fastcifar.augment.transform import Transform
from fastcifar.data.cifar10 import CHANNELS, IMAGE_SIZE
from fastcifar.errors import UserError
from fastcifar.loader.options import LoaderOptions
from fastcifar.loader.order import EpochPlan

IMAGES_PER_READ = 1000
"""Smaller batches are read and augmented together: waking the threads takes as long as augmenting 100 images."""
MIN_VALUE_BYTES = 2
"""Size of the smallest value type a batch can have (float16, bfloat16)."""

Array = np.ndarray | Tensor
"""Tensors for loaders that deliver on a GPU."""


class RawRead(NamedTuple):
    """The stored images of one or more batches, on the loader's device. Valid until the next read."""

    images: Array  # uint8 (n, 32, 32, 3): the images that were read, or the whole split
    rows: Array  # int64 (b,): the positions of the batches' images in `images`
    samples: Array  # int64 (b,): their indices in the data set
    labels: Tensor  # int64 (b,); later reads do not overwrite it


class Loader(ABC):
    """Batches of augmented images and their labels, epoch by epoch. A context manager that closes itself."""

    def __init__(self, samples: int, transform: Transform, options: LoaderOptions) -> None:
        self._plan = EpochPlan(samples, options)
        self._batches_per_read = max(1, IMAGES_PER_READ // options.batch_size)
        self._max_read = min(self._batches_per_read * options.batch_size, samples)
        self._device = options.device or torch.device("cpu")
        self._transform = self._on_device(transform)
        self._size_at = options.size_at or (lambda step: IMAGE_SIZE)
        self._closed = False

    @property
    def samples(self) -> int:
        """Samples in the split."""
        return self._plan.samples

    @property
    def batch_size(self) -> int:
        """Samples in every batch except, without `drop_last`, the last."""
        return self._plan.options.batch_size

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self._plan)

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of epoch `number`, from batch `start` on; the batches before it are not read.

        A batch is (images, labels) on the loader's device: images (b, 3, size, size) in channels_last, in the
        transform's dtype, and labels int64 (b,). A batch is never overwritten, so it may be kept. Keeping one may keep
        the memory of the batches that were read with it.
        Several epochs may be iterated at the same time. Abandoning one releases its thread and buffers.

        Raises UserError for a `start` outside [0, len(self)], a `number` outside [0, 2**64) and a closed loader, and,
        during the iteration, RunFailedError if reading fails.
        """
        self._check_open()
        return self._iterate(number, start, self._plan.batches(number, start))

    def plain_images(self, count: int, transform: Transform) -> Tensor:
        """Images (n, 3, 32, 32) of the first batches of epoch 0, made by `transform` instead of the loader's own.

        n is `count` rounded up to whole batches, and at most the size of the epoch. For statistics that a model takes
        from the training set before training.
        """
        self._check_open()
        reads = self._reads(self._plan.batches(0)[: -(-count // self.batch_size)])
        apply = self._on_device(transform)
        with contextlib.closing(self._read([np.concatenate(read) for read in reads])) as raw_reads:
            return torch.cat([apply(raw.images, raw.rows, raw.samples, 0) for raw in raw_reads])

    def _iterate(self, number: int, start: int, batches: list[np.ndarray]) -> Iterator[tuple[Tensor, Tensor]]:
        step = number * len(self) + start
        reads = self._reads(batches)
        with contextlib.closing(self._read([np.concatenate(read) for read in reads])) as raw_reads:
            for read in reads:
                self._check_open()
                raw = next(raw_reads)
                sizes = [self._size_at(step + i) for i in range(len(read))]
                step += len(read)
                for batch in self._augmented_batches(raw, read, sizes, number):
                    yield batch
                    self._check_open()

    def _reads(self, batches: list[np.ndarray]) -> list[list[np.ndarray]]:
        return [batches[i : i + self._batches_per_read] for i in range(0, len(batches), self._batches_per_read)]

    def _augmented_batches(
        self, raw: RawRead, batches: list[np.ndarray], sizes: list[int], epoch: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one read. Neighbours of the same size are made by one call of the transform."""
        done = 0
        for size, group in _groups_of_equal_size(batches, sizes):
            lengths = [len(batch) for batch in group]
            part = slice(done, done := done + sum(lengths))
            images = self._transform(raw.images, raw.rows[part], raw.samples[part], epoch, size)
            batches_of_images = list(images.split(lengths))
            if self._plan.options.op is not None:
                samples = torch.as_tensor(raw.samples[part]).split(lengths)
                batches_of_images = [
                    self._with_op(*batch, epoch) for batch in zip(batches_of_images, samples, strict=True)
                ]
            yield from zip(batches_of_images, raw.labels[part].split(lengths), strict=True)

    def _with_op(self, images: Tensor, samples: Tensor, epoch: int) -> Tensor:
        """One batch after the augmentation op; UserError if that returns anything else than such a batch."""
        options = self._plan.options
        assert options.op is not None
        found = options.op.apply(images, BatchDraws(options.seed, epoch, samples))
        if getattr(found, "shape", None) != images.shape or found.dtype != images.dtype or found.requires_grad:
            kind = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            wanted = f"{images.dtype} {tuple(images.shape)} without gradients"
            raise UserError(f"the augmentation op {type(options.op).__name__} returns {kind}, but must return {wanted}")
        return found

    def _on_device(self, transform: Transform) -> Callable[..., Tensor]:
        """`transform` for the arrays that `_read` yields."""
        return transform

    @abstractmethod
    def _read(self, reads: list[np.ndarray]) -> Generator[RawRead]:
        """Reads samples in order: each item is int64 indices, at most `_max_read`. Starts no work before `next`."""

    def _check_open(self) -> None:
        if self._closed:
            raise UserError("this loader is closed: open another one with open_loader")

    def close(self) -> None:
        """Ends every running epoch, whose next `next` raises UserError, and releases the data. May be repeated."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _groups_of_equal_size(batches: list[np.ndarray], sizes: list[int]) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Groups neighbouring batches of one image size, such that every batch of a group starts at an aligned address.

    The alignment of a batch then never depends on its neighbours, and so neither does the rounding of arithmetic on it.
    """
    group: list[np.ndarray] = []
    for i, (batch, size) in enumerate(zip(batches, sizes, strict=True)):
        group.append(batch)
        aligned = len(batch) * size * size * CHANNELS * MIN_VALUE_BYTES % ALIGNMENT == 0
        if not aligned or i + 1 == len(batches) or sizes[i + 1] != size:
            yield size, group
            group = []
