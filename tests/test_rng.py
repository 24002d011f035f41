"""The counter-based generator against the published one, and the seeds of torch's generators."""

import contextlib

import numba
import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastcifar.rng import (
    Purpose,
    generator,
    hash64,
    hash64_tensor,
    random_order,
    seeded,
    stream_key,
    stream_key_tensor,
    torch_seed,
)

uint64 = st.integers(0, 2**64 - 1)


def published_splitmix64(state: int, steps: int) -> int:
    """The published generator with Python integers: advances the state `steps` times and mixes the last one."""
    state = (state + steps * 0x9E3779B97F4A7C15) % 2**64
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return state ^ (state >> 31)


@given(uint64, uint64)
def test_hash_is_splitmix64(key: int, counter: int):
    hashed = hash64(np.array([key], np.uint64), np.array([counter], np.uint64))
    assert int(hashed[0]) == published_splitmix64(key, counter + 1)


def tensor(*values: int) -> torch.Tensor:
    """int64 with the bits of `values`."""
    return torch.from_numpy(np.array(values, np.uint64).view(np.int64))


@given(st.lists(uint64, min_size=2, max_size=2), st.lists(uint64, min_size=3, max_size=3))
def test_hashes_and_keys_as_tensors(keys: list[int], counters: list[int]):
    expected = [hash64(np.array([key], np.uint64), np.array(counters, np.uint64)).view(np.int64) for key in keys]
    found = hash64_tensor(tensor(*keys)[:, None], tensor(*counters))
    assert found.tolist() == np.stack(expected).tolist()
    assert torch.equal(hash64_tensor(keys[0], tensor(*counters)), found[0])
    for purpose in Purpose:
        of_epochs = stream_key_tensor(tensor(keys[0])[0], torch.tensor(purpose), tensor(*counters))
        assert torch.equal(of_epochs, tensor(*(int(stream_key(keys[0], purpose, epoch)) for epoch in counters)))


def test_first_outputs_for_seed_0_are_the_published_ones():
    values = hash64(np.zeros(3, np.uint64), np.arange(3, dtype=np.uint64))
    assert [hex(value) for value in values] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4", "0x6c45d188009454f"]


def test_compiled_equals_numpy():
    compiled = numba.njit(hash64)
    keys, counters = np.random.default_rng(0).integers(0, 2**64, (2, 1000), np.uint64)
    assert [compiled(k, c) for k, c in zip(keys, counters, strict=True)] == hash64(keys, counters).tolist()


def test_golden_keys_never_change():
    """A change here changes every image of every recorded run."""
    assert int(stream_key(0, Purpose.AUGMENT, 0)) == 0x2F101FE21496EA20
    assert int(stream_key(2**63 - 1, Purpose.FLIP, 7)) == 0xBEEE9EED4D1E608B
    assert random_order(10, 7, 1).tolist() == [1, 5, 6, 9, 2, 0, 3, 7, 4, 8]
    assert random_order(10, 8, 0).tolist() == [9, 8, 5, 7, 4, 0, 1, 3, 6, 2]


@given(st.integers(0, 2**63 - 1), st.integers(0, 1000))
def test_neighbouring_seeds_epochs_and_purposes_have_different_streams(seed: int, epoch: int):
    keys = {int(stream_key(s, purpose, e)) for s in (seed, seed + 1) for e in (epoch, epoch + 1) for purpose in Purpose}
    assert len(keys) == 2 * 2 * len(Purpose)
    torch_seeds = {torch_seed(s, purpose) for s in (seed, seed + 1) for purpose in Purpose}
    assert len(torch_seeds) == 2 * len(Purpose)
    assert 0 <= min(torch_seeds) <= max(torch_seeds) < 2**63


@given(st.integers(0, 300), uint64, uint64)
def test_order_is_a_permutation_and_repeats(samples: int, seed: int, epoch: int):
    order = random_order(samples, seed, epoch)
    assert sorted(order.tolist()) == list(range(samples))
    assert np.array_equal(order, random_order(samples, seed, epoch))


def test_bits_are_balanced_and_uncorrelated():
    hashed = hash64(np.full(100_000, stream_key(1, Purpose.AUGMENT, 3)), np.arange(100_000, dtype=np.uint64))
    bits = (hashed[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(bits.mean(0) - 0.5).max() < 5 * 0.5 / np.sqrt(100_000)
    correlation = np.corrcoef(bits.T.astype(np.float64)) - np.eye(64)
    assert np.abs(correlation).max() < 6 / np.sqrt(100_000)


def test_a_generator_is_independent_of_the_global_one():
    torch.manual_seed(1)
    first = torch.rand(3, generator=generator(4, Purpose.INIT))
    torch.rand(5)
    assert torch.equal(torch.rand(3, generator=generator(4, Purpose.INIT)), first)


def test_seeded_restores_the_global_generator():
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    inside = []
    for _ in range(2):
        with contextlib.suppress(KeyError), seeded(4, Purpose.DROPOUT):
            inside.append(torch.rand(3))
            raise KeyError
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(inside[0], inside[1])
