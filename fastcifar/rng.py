"""The only source of randomness: a counter-based generator in integer arithmetic, and seeds for torch's generators.

The generator has no state. A sample's random numbers are a function of (run seed, epoch, sample index), so they do not
depend on the batch size, the thread, the loader or earlier draws. `hash64` is plain Python: NumPy runs it on arrays,
and numba compiles it for CPUs and GPUs. Its constants are np.uint64 because numba would promote a Python int to signed.

Source: splitmix64, the output function of G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014, with the state indexed instead of advanced.
"""

import contextlib
from collections.abc import Iterator
from enum import IntEnum
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)
ONE = np.uint64(1)
SHIFT_30, SHIFT_27, SHIFT_31 = np.uint64(30), np.uint64(27), np.uint64(31)


class Purpose(IntEnum):
    """What a stream of random numbers is used for. Never renumber: every recorded run depends on these numbers."""

    AUGMENT = 1
    FLIP = 2
    ORDER = 3
    INIT = 4
    DROPOUT = 5
    AUGMENT_OP = 6


def hash64(key, counter):
    """Output number `counter` (uint64) of the splitmix64 stream with state `key` (uint64); uint64, wraps around."""
    x = key + (counter + ONE) * GOLDEN
    x = (x ^ (x >> SHIFT_30)) * MIX_1
    x = (x ^ (x >> SHIFT_27)) * MIX_2
    return x ^ (x >> SHIFT_31)


def hash64_tensor(key: int | Tensor, counter: Tensor) -> Tensor:
    """`hash64` by tensor operations, on any device, without a copy from the host; an int64 tensor of `counter`'s bits.

    `counter` int64, and `key` an int in [0, 2**64) or int64, of shapes that broadcast: int64 holds the bits of uint64.
    """

    def mixed(x: Tensor, shift: int) -> Tensor:
        return x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))  # torch shifts the sign in; the mask takes it out

    golden, mix_1, mix_2 = np.array([GOLDEN, MIX_1, MIX_2]).view(np.int64).tolist()
    start = key if isinstance(key, Tensor) else int(np.array(key, np.uint64).view(np.int64))
    return mixed(mixed(mixed((counter + 1) * golden + start, 30) * mix_1, 27) * mix_2, 31)


@lru_cache(maxsize=64)
def stream_key(seed: int, purpose: Purpose, epoch: int = 0) -> np.uint64:
    """Key of the stream for (seed, purpose, epoch), with `seed` and `epoch` in [0, 2**64).

    Each part is hashed. A sum would give (seed 7, epoch 1) and (seed 8, epoch 0) the same stream.
    """
    key = np.zeros(1, np.uint64)  # an array, because NumPy warns when a scalar overflows
    for part in (seed, int(purpose), epoch):
        key = hash64(key, np.full(1, part, np.uint64))
    return key[0]


def stream_key_tensor(seed: Tensor, purpose: Tensor, epoch: Tensor) -> Tensor:
    """`stream_key` by tensor operations: int64 tensors on one device, of shapes that broadcast, with uint64 bits."""
    return hash64_tensor(hash64_tensor(hash64_tensor(0, seed), purpose), epoch)


def random_order(samples: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of range(samples), int64 (samples,): the samples sorted by their 64-bit hashes.

    `hash64` is a bijection of the counter. No two hashes are equal, so every sorting algorithm gives the same order.
    """
    key = np.full(samples, stream_key(seed, Purpose.ORDER, epoch))
    return np.argsort(hash64(key, np.arange(samples, dtype=np.uint64)))


def torch_seed(seed: int, purpose: Purpose) -> int:
    """A seed for torch in [0, 2**63), independent of other purposes and of neighbouring run seeds."""
    return int(stream_key(seed, purpose)) >> 1


def generator(seed: int, purpose: Purpose) -> torch.Generator:
    """A separate CPU generator, which draws from torch's global generator do not affect."""
    return torch.Generator().manual_seed(torch_seed(seed, purpose))


@contextlib.contextmanager
def seeded(seed: int, purpose: Purpose) -> Iterator[None]:
    """Seeds torch's global CPU and GPU generators inside the context, and restores their state afterwards."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):  # without a list torch warns of several GPUs
        torch.manual_seed(torch_seed(seed, purpose))
        yield
