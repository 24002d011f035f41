"""Augmentation ops: their draws depend on the image alone, and a run with one repeats."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastcifar.api import open_loader
from fastcifar.augment.draws import BatchDraws
from fastcifar.augment.ops.jitter import Jitter
from fastcifar.augment.ops.none import NoOp
from fastcifar.config import AugmentOp, Config, Draws
from fastcifar.rng import Purpose, hash64, hash64_tensor, stream_key


@given(key=st.integers(0, 2**64 - 1), counters=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20))
def test_the_tensor_hash_is_that_of_numpy(key: int, counters: list[int]) -> None:
    numbers = np.array(counters, np.uint64)
    expected = hash64(np.full(len(numbers), key, np.uint64), numbers)
    found = hash64_tensor(key, torch.from_numpy(numbers.view(np.int64)))
    assert np.array_equal(found.numpy().view(np.uint64), expected)


@given(
    seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 1000), number=st.integers(0, 9), sample=st.integers(0, 10**6)
)
def test_a_draw_by_its_formula(seed: int, epoch: int, number: int, sample: int) -> None:
    key = np.array([stream_key(seed, Purpose.AUGMENT_OP, epoch)])
    bits = hash64(hash64(key, np.array([number], np.uint64)), np.array([sample], np.uint64))
    expected = np.float32(int(bits[0]) >> 40) / np.float32(2**24)
    found = BatchDraws(seed, epoch, torch.tensor([sample])).uniform(number)
    assert (found.dtype, found.item()) == (torch.float32, expected)
    assert 0 <= found.item() < 1


def test_draws_are_uniform_and_independent() -> None:
    samples = torch.arange(20_000)
    some = [
        BatchDraws(seed, epoch, samples).uniform(n) for seed, epoch, n in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))
    ]
    for values in some:
        assert torch.histc(values, 20, 0, 1).sub(1000).abs().max() < 200  # six standard deviations
    correlations = torch.corrcoef(torch.stack(some)) - torch.eye(4)
    assert correlations.abs().max() < 0.05


@dataclass(frozen=True)
class Recorded(AugmentOp):
    """Writes its draw into the first pixel."""

    def apply(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        images = images.clone()
        images[:, 0, 0, 0] = draws.uniform(3).to(images.dtype)
        return images


def draws_by_label_order(config: Config, loader_kind: Any, batch_size: int) -> list[float]:
    config = replace(config, augment_op=Recorded(), loader=loader_kind, batch_size=batch_size)
    with open_loader(config) as loader:
        return torch.cat([images[:, 0, 0, 0] for images, _ in loader.epoch(2)]).tolist()


def test_the_batch_size_and_the_loader_have_no_influence(tiny: Config) -> None:
    expected = draws_by_label_order(tiny, "resident", 50)
    assert len(set(expected)) > 590
    assert draws_by_label_order(tiny, "resident", 200) == expected
    assert draws_by_label_order(tiny, "stream", 40) == expected


def test_test_images_are_left_alone(tiny: Config) -> None:
    batches = []
    for op in (NoOp(), Jitter()):
        with open_loader(replace(tiny, augment_op=op), "test") as loader:
            batches.append(next(iter(loader.epoch(0)))[0])
    assert torch.equal(*batches)


class Fixed:
    """Draws that are given."""

    def uniform(self, number: int) -> torch.Tensor:
        return torch.tensor([[0.0, 0.5, 0.75], [1.0, 0.5, 0.0]][number])


def test_jitter_by_its_formula() -> None:
    images = torch.ones(3, 3, 2, 2)
    found = Jitter(brightness=0.2, contrast=0.1).apply(images, Fixed())
    assert found[:, 0, 0, 0].tolist() == pytest.approx([1.1 - 0.2, 1.0, 0.9 + 0.1])
    assert torch.equal(Jitter(brightness=0, contrast=0).apply(images, Fixed()), images)
    assert Jitter().apply(images.bfloat16(), Fixed()).dtype == torch.bfloat16


def test_a_run_with_an_op_repeats_and_differs(tiny: Config, tmp_path: Path) -> None:
    from fastcifar.training.trainer import train

    config = replace(tiny, epochs=0.5, runs=tmp_path)
    plain, first, again = (
        train(replace(config, augment_op=op))[1]["weights_sha256"] for op in (NoOp(), Jitter(), Jitter())
    )
    assert first == again != plain


@dataclass(frozen=True)
class Centred(AugmentOp):
    """Depends on all images of a batch."""

    def apply(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        return images - images.mean(0)


def test_an_op_gets_one_batch_wherever_an_epoch_starts(tiny: Config) -> None:
    """Several batches are read at once; how many depends on the start, as when a run resumes."""
    with open_loader(replace(tiny, augment_op=Centred())) as loader:
        whole = [images for images, _ in loader.epoch(0)]
        for images, expected in zip((images for images, _ in loader.epoch(0, 5)), whole[5:], strict=True):
            assert torch.equal(images, expected)
            assert images.mean(0).abs().max() < 1e-5
