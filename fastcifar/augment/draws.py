"""Random numbers for augmentation ops, on any device, from the images' own indices."""

import torch
from torch import Tensor

from fastcifar.rng import Purpose, hash64_tensor, stream_key

BITS = 24
"""Bits of a draw: as many as a float32 in [0, 1) represents exactly."""


class BatchDraws:
    """The draws of one batch; a function of (seed, epoch, sample index, number), whatever batch the image is in."""

    def __init__(self, seed: int, epoch: int, samples: Tensor) -> None:
        """`samples`: int64 (n,), indices in the data set, on the device of the images."""
        self._key, self._samples = stream_key(seed, Purpose.AUGMENT_OP, epoch), samples

    def uniform(self, number: int) -> Tensor:
        """See `config.Draws`."""
        key = hash64_tensor(int(self._key), torch.tensor(number, device=self._samples.device))
        bits = hash64_tensor(key, self._samples)
        return (bits >> (64 - BITS) & (1 << BITS) - 1).to(torch.float32) / (1 << BITS)
