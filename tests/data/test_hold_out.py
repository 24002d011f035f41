"""Held-out samples: which ones they are, and that no folder changes from one hold-out to another unasked."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcifar.data.cifar10 import OFFICIAL_ARCHIVES
from fastcifar.data.preparation import Request, prepare
from fastcifar.data.prepared import read_split, write_set
from fastcifar.data.raw_set import RawSet, RawSplit, hold_out
from fastcifar.data.sources.synthetic import synthetic_set
from fastcifar.errors import UserError


@pytest.fixture(scope="module")
def whole() -> RawSet:
    return synthetic_set(train=60, test=20, seed=3)


def samples(split: RawSplit) -> list[tuple[bytes, int]]:
    return [(image.tobytes(), label) for image, label in zip(split.images_nhwc, split.labels.tolist(), strict=True)]


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 59), order=st.permutations(range(60)))
def test_the_split_depends_on_the_samples_alone(whole: RawSet, count: int, order: list[int]) -> None:
    held = hold_out(whole, count)
    train, test, before = samples(held.train), samples(held.test), samples(whole.train)
    assert len(test) == count
    assert sorted(train + test) == sorted(before)
    for kept in (train, test):  # in their original order
        assert kept == [sample for sample in before if sample in kept]
    shuffled = RawSplit(images_nhwc=whole.train.images_nhwc[order], labels=whole.train.labels[order])
    assert set(samples(hold_out(replace(whole, train=shuffled), count).test)) == set(test)
    assert set(samples(hold_out(whole, min(count + 5, 59)).test)) >= set(test)


def test_holding_out_none_returns_the_set(whole: RawSet) -> None:
    assert hold_out(whole, 0) is whole


@pytest.mark.parametrize("count", [-1, 60, 10**9])
def test_a_count_that_leaves_nothing(whole: RawSet, count: int) -> None:
    with pytest.raises(UserError, match=f"--hold-out is {count}, .*59"):
        hold_out(whole, count)


@pytest.mark.usefixtures("quick_writer")
def test_a_hold_out_of_cifar10_is_custom_data(whole: RawSet, tmp_path: Path) -> None:
    source = replace(whole.source, kind="cifar-python", seed=None, checksum=f"md5:{OFFICIAL_ARCHIVES[0].md5}")
    official = replace(whole, source=source)
    assert write_set(official, tmp_path / "whole").dataset == "cifar10"
    manifest = write_set(hold_out(official, 10), tmp_path / "held")
    assert (manifest.dataset, manifest.source.held_out) == ("custom", 10)


@pytest.mark.usefixtures("quick_writer")
def test_a_folder_keeps_its_hold_out(tmp_path: Path, whole: RawSet) -> None:
    request = Request(out=tmp_path, source="synthetic", synthetic_train=60, synthetic_test=20, seed=3, mirrors=())
    with pytest.raises(UserError, match="--hold-out is -1"):
        prepare(replace(request, hold_out=-1))
    held = replace(request, hold_out=15)
    manifest = prepare(held).manifest
    assert [manifest.splits[split].samples for split in ("train", "test")] == [45, 15]
    images, labels = read_split(tmp_path, "test")
    expected = hold_out(whole, 15).test
    np.testing.assert_array_equal(images, expected.images_nhwc)
    np.testing.assert_array_equal(labels, expected.labels)
    assert not prepare(held).written
    assert not prepare(replace(held, source=None)).written
    for other in (request, replace(request, source=None), replace(request, hold_out=5)):
        with pytest.raises(UserError, match=f"15 train samples .*--hold-out is {other.hold_out};"):
            prepare(other)
    (tmp_path / "test.beton").unlink()  # also if the set is damaged
    with pytest.raises(UserError, match="--hold-out is 0;"):
        prepare(request)
    assert prepare(held).written
    assert prepare(replace(request, force=True)).written
    with pytest.raises(UserError, match=r"0 train samples .*--hold-out is 15;"):
        prepare(held)
