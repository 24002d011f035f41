"""Which samples are in which batch: a pure function of (seed, epoch), the same for every loader."""

from dataclasses import dataclass

import numpy as np

from fastcifar.errors import UserError
from fastcifar.loader.options import LoaderOptions, check_uint64
from fastcifar.rng import random_order


def epoch_order(samples: int, seed: int, epoch: int) -> np.ndarray:
    """The order of one epoch: a permutation of range(samples), int64 (samples,).

    Uses integer arithmetic only, so it is the same on every machine and with every version of NumPy. Neighbouring
    seeds and epochs give unrelated orders. Raises UserError if `seed` or `epoch` is outside [0, 2**64).
    """
    check_uint64("seed", seed)
    check_uint64("epoch", epoch)
    return random_order(samples, seed, epoch).astype(np.int64, copy=False)


def batch_count(samples: int, batch_size: int, drop_last: bool) -> int:
    """Number of batches in `samples`: rounded down with `drop_last`, else up."""
    return samples // batch_size if drop_last else -(-samples // batch_size)


def batches_of(order: np.ndarray, batch_size: int, drop_last: bool) -> list[np.ndarray]:
    """Cuts `order` (n,) into batches, views of (batch_size,). The last may be smaller unless `drop_last`."""
    count = batch_count(len(order), batch_size, drop_last)
    return [order[i * batch_size : (i + 1) * batch_size] for i in range(count)]


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """The batches of every epoch over `samples` samples. Raises UserError if there would be no batch."""

    samples: int
    options: LoaderOptions

    def __post_init__(self) -> None:
        batch_size = self.options.batch_size
        if self.samples < 1:
            raise UserError("the split has no samples: prepare the data again")
        if self.options.drop_last and batch_size > self.samples:
            raise UserError(
                f"batch size {batch_size} is larger than the data set of {self.samples} samples and incomplete "
                f"batches are dropped, so there would be no batch: give at most {self.samples}, or keep the last batch"
            )

    def __len__(self) -> int:
        return batch_count(self.samples, self.options.batch_size, self.options.drop_last)

    def batches(self, epoch: int, start: int = 0) -> list[np.ndarray]:
        """The sample indices of the batches of one epoch from batch `start` on, each int64 (b,).

        Raises UserError if `start` is outside [0, len(self)] or `epoch` is outside [0, 2**64).
        """
        if not 0 <= start <= len(self):
            raise UserError(f"start batch {start} is not in this epoch of {len(self)} batches")
        check_uint64("epoch", epoch)
        options = self.options
        order = epoch_order(self.samples, options.seed, epoch) if options.shuffle else np.arange(self.samples)
        return batches_of(order, options.batch_size, options.drop_last)[start:]
