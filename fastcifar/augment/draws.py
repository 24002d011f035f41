"""Random numbers for augmentation ops, on any device, from the images' own indices."""

import numpy as np
import torch
from torch import Tensor

from fastcifar.rng import Purpose, hash64, hash64_tensor, stream_key

BITS = 24
"""Bits of a draw: as many as a float32 in [0, 1) represents exactly."""


class BatchDraws:
    """The draws of one batch; a function of (seed, epoch, sample index, number), whatever batch the image is in."""

    def __init__(self, seed: int, epoch: int, samples: Tensor) -> None:
        """`samples`: int64 (n,), indices in the data set, on the device of the images."""
        self._key, self._samples = np.array([stream_key(seed, Purpose.AUGMENT_OP, epoch)]), samples

    def uniform(self, number: int) -> Tensor:
        """See `config.Draws`."""
        key = hash64(self._key, np.array([number], np.uint64))  # on the host: a tensor would wait for the device
        bits = hash64_tensor(int(key[0]), self._samples)
        return (bits >> (64 - BITS) & (1 << BITS) - 1).to(torch.float32) / (1 << BITS)
