"""Held-out images: which ones they are, and that no folder changes from one kind of set to the other unasked."""

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
def test_train_samples_are_parted_by_what_they_are(whole: RawSet, count: int, order: list[int]) -> None:
    held = hold_out(whole, count)
    train, test = samples(held.train), samples(held.test)
    assert len(test) == count
    assert sorted(train + test) == sorted(samples(whole.train))
    before = samples(whole.train)
    for kept in (train, test):  # in the order in which they were
        assert kept == [sample for sample in before if sample in kept]
    shuffled = RawSplit(images_nhwc=whole.train.images_nhwc[order], labels=whole.train.labels[order])
    assert set(samples(hold_out(replace(whole, train=shuffled), count).test)) == set(test)


def test_more_held_out_are_the_same_and_more(whole: RawSet) -> None:
    assert set(samples(hold_out(whole, 10).test)) < set(samples(hold_out(whole, 25).test))


def test_none_held_out_is_the_set_itself(whole: RawSet) -> None:
    assert hold_out(whole, 0) is whole


@pytest.mark.parametrize("count", [-1, 60, 10**9])
def test_a_count_that_leaves_nothing(whole: RawSet, count: int) -> None:
    text = f"--hold-out is {count}, but must be from 0 to 59: the train split has 60"
    with pytest.raises(UserError, match=text):
        hold_out(whole, count)


@pytest.mark.usefixtures("quick_writer")
def test_what_is_held_out_of_cifar10_is_not_called_cifar10(whole: RawSet, tmp_path: Path) -> None:
    source = replace(whole.source, kind="cifar-python", seed=None, checksum=f"md5:{OFFICIAL_ARCHIVES[0].md5}")
    official = replace(whole, source=source)
    assert write_set(official, tmp_path / "whole").dataset == "cifar10"
    manifest = write_set(hold_out(official, 10), tmp_path / "held")
    assert (manifest.dataset, manifest.source.held_out) == ("custom", 10)


@pytest.mark.usefixtures("quick_writer")
def test_a_folder_keeps_its_kind_of_set(tmp_path: Path, whole: RawSet) -> None:
    request = Request(out=tmp_path, source="synthetic", synthetic_train=60, synthetic_test=20, seed=3, mirrors=())
    held = replace(request, hold_out=15)
    manifest = prepare(held).manifest
    assert (manifest.dataset, manifest.splits["train"].samples, manifest.splits["test"].samples) == (
        "synthetic",
        45,
        15,
    )
    images, labels = read_split(tmp_path, "test")
    expected = hold_out(whole, 15).test
    assert np.array_equal(images, expected.images_nhwc)
    assert np.array_equal(labels, expected.labels)
    assert not prepare(held).written
    assert not prepare(replace(held, source=None)).written
    for other, count in ((request, 0), (replace(request, source=None), 0), (replace(request, hold_out=5), 5)):
        text = f"holds a set with 15 train samples held out, but --hold-out is {count}; say --hold-out 15 to keep it"
        with pytest.raises(UserError, match=text):
            prepare(other)
    (tmp_path / "test.beton").unlink()  # damaged, and still what it was
    with pytest.raises(UserError, match="holds a set with 15 train samples held out, but --hold-out is 0"):
        prepare(request)
    assert prepare(held).written
    assert prepare(replace(request, force=True)).written
    with pytest.raises(UserError, match="holds a set with 0 train samples held out, but --hold-out is 15"):
        prepare(held)


@pytest.mark.usefixtures("quick_writer")
def test_nothing_below_zero(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--hold-out is -1, but must be at least 0"):
        prepare(Request(out=tmp_path, source="synthetic", hold_out=-1))
