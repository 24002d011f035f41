"""Which samples are in which batch of which epoch: a pure function of the seed and the epoch, for every loader."""

from dataclasses import dataclass

import numpy as np

from fastcifar.errors import UserError
from fastcifar.rng import random_order

UINT64_LIMIT = 2**64


def epoch_order(samples: int, seed: int, epoch: int) -> np.ndarray:
    """The order of one epoch: a permutation of range(samples), int64 (samples,).

    Integer arithmetic only, so the same on every machine and with every version of NumPy; neighbouring seeds and
    epochs have nothing in common. Raises UserError if `seed` or `epoch` is outside [0, 2**64).
    """
    for name, value in (("seed", seed), ("epoch", epoch)):
        if not 0 <= value < UINT64_LIMIT:
            raise UserError(f"{name} {value} is out of range: give a whole number from 0 to 2**64 - 1")
    return random_order(samples, seed, epoch).astype(np.int64, copy=False)


def batch_count(samples: int, batch_size: int, drop_last: bool) -> int:
    """How many batches `samples` make: rounded down with `drop_last`, else up."""
    return samples // batch_size if drop_last else -(-samples // batch_size)


def batches_of(order: np.ndarray, batch_size: int, drop_last: bool) -> list[np.ndarray]:
    """Cuts `order` (n,) into batches, views of (batch_size,); the last may be smaller unless `drop_last`."""
    count = batch_count(len(order), batch_size, drop_last)
    return [order[i * batch_size : (i + 1) * batch_size] for i in range(count)]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochPlan:
    """The batches of every epoch; raises UserError for values that would deliver nothing or cannot be used."""

    samples: int  # in the split; at least 1
    batch_size: int  # samples; at least 1
    seed: int  # of the order; [0, 2**64)
    shuffle: bool  # False: the order of the file in every epoch
    drop_last: bool  # leave out a last batch of fewer than batch_size samples

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UserError("the split has no samples: prepare the data again")
        if self.batch_size < 1:
            raise UserError(f"batch size {self.batch_size} is too small: give at least 1")
        if not 0 <= self.seed < UINT64_LIMIT:
            raise UserError(f"seed {self.seed} is out of range: give a whole number from 0 to 2**64 - 1")
        if self.drop_last and self.batch_size > self.samples:
            raise UserError(
                f"batch size {self.batch_size} is larger than the data set of {self.samples} samples and incomplete "
                f"batches are dropped, so there would be no batch: give at most {self.samples}, or keep the last batch"
            )

    def __len__(self) -> int:
        return batch_count(self.samples, self.batch_size, self.drop_last)

    def batches(self, epoch: int, start: int = 0) -> list[np.ndarray]:
        """The sample indices of epoch `epoch`, one int64 (b,) a batch, without the first `start` batches.

        Raises UserError if `start` is outside [0, len(self)] or `epoch` is outside [0, 2**64).
        """
        if not 0 <= start <= len(self):
            raise UserError(f"start batch {start} is not in this epoch of {len(self)} batches")
        if not 0 <= epoch < UINT64_LIMIT:
            raise UserError(f"epoch {epoch} is out of range: give a whole number from 0 to 2**64 - 1")
        order = epoch_order(self.samples, self.seed, epoch) if self.shuffle else np.arange(self.samples)
        return batches_of(order, self.batch_size, self.drop_last)[start:]
