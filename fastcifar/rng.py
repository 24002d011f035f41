"""Every random number of the data path: a counter-based generator in integer arithmetic.

Nothing here has state. What happens to a sample is a function of (run seed, epoch, sample index), so it does not depend
on the batch size, the thread, the loader or what was drawn before. `hash64` is plain Python that NumPy runs on arrays
and numba compiles for CPUs and GPUs alike; the constants are np.uint64, or numba would promote to signed arithmetic.

Source: splitmix64, the output function of G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014, with the state indexed instead of advanced.
"""

import contextlib
from collections.abc import Iterator
from enum import IntEnum
from functools import lru_cache

import numpy as np
import torch

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)
ONE = np.uint64(1)
SHIFT_30, SHIFT_27, SHIFT_31 = np.uint64(30), np.uint64(27), np.uint64(31)

HASHES_PER_SAMPLE = 2
"""64-bit hashes a sample uses per epoch: one for the crop, one for the cutout; two 32-bit draws each."""


class Purpose(IntEnum):
    """What a stream of random numbers is for; streams of different purposes share nothing. Never renumber."""

    AUGMENT = 1
    FLIP = 2
    ORDER = 3
    INIT = 4
    DROPOUT = 5


def hash64(key, counter):
    """The `counter`-th (uint64) output of the splitmix64 stream that starts at `key` (uint64); uint64, wraps around."""
    x = key + (counter + ONE) * GOLDEN
    x = (x ^ (x >> SHIFT_30)) * MIX_1
    x = (x ^ (x >> SHIFT_27)) * MIX_2
    return x ^ (x >> SHIFT_31)


@lru_cache(maxsize=64)
def stream_key(seed: int, purpose: Purpose, epoch: int = 0) -> np.uint64:
    """Key of the stream for (seed, purpose, epoch); each part is hashed, so (7, 1) and (8, 0) have nothing in common.

    `seed` and `epoch` are in [0, 2**64).
    """
    key = np.zeros(1, np.uint64)  # an array, because NumPy warns when a scalar wraps around
    for part in (seed, int(purpose), epoch):
        key = hash64(key, np.full(1, part, np.uint64))
    return key[0]


def random_order(samples: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of range(samples), int64: the samples sorted by their 64-bit hashes.

    `hash64` is a bijection of the counter, so no two hashes are equal and every sorting algorithm gives the same order.
    """
    key = np.full(samples, stream_key(seed, Purpose.ORDER, epoch))
    return np.argsort(hash64(key, np.arange(samples, dtype=np.uint64)))


def torch_seed(seed: int, purpose: Purpose) -> int:
    """A seed for torch, 0 to 2**63 - 1, that shares nothing with other purposes or neighbouring run seeds."""
    return int(stream_key(seed, purpose)) >> 1


def generator(seed: int, purpose: Purpose) -> torch.Generator:
    """A CPU generator of its own, so that nobody else's draws move it."""
    return torch.Generator().manual_seed(torch_seed(seed, purpose))


@contextlib.contextmanager
def seeded(seed: int, purpose: Purpose) -> Iterator[None]:
    """Torch's global CPU and GPU generators seeded inside, and as they were before outside."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):  # named, as torch warns of several otherwise
        torch.manual_seed(torch_seed(seed, purpose))
        yield
