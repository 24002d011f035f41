"""One run seed, independent streams of torch's random numbers per purpose."""

import contextlib
from collections.abc import Iterator

import torch

from fastcifar.augment.draws import Purpose, stream_key


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
