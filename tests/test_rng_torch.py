"""Independent streams of torch's random numbers from one run seed."""

import contextlib

import torch

from fastcifar.rng import Purpose, generator, seeded, torch_seed


def test_purposes_and_neighbouring_seeds_share_nothing() -> None:
    seeds = [torch_seed(seed, purpose) for seed in (0, 1, 2, 2**63 - 1) for purpose in Purpose]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_generator_is_its_own() -> None:
    torch.manual_seed(1)
    first = torch.rand(3, generator=generator(4, Purpose.INIT))
    torch.rand(5)
    assert torch.equal(torch.rand(3, generator=generator(4, Purpose.INIT)), first)


def test_seeded_puts_the_global_generator_back() -> None:
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    with contextlib.suppress(KeyError), seeded(4, Purpose.DROPOUT):
        inside = torch.rand(3)
        raise KeyError
    assert torch.equal(torch.rand(3), expected)
    with seeded(4, Purpose.DROPOUT):
        assert torch.equal(torch.rand(3), inside)
