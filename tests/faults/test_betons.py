"""Damaged betons are refused or give the batches of the undamaged ones: no crash, no hang, no other image."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from mutations import write_sound_set
from watch import Tally, try_betons

from fastcifar.augment.transform import Transform
from fastcifar.config import NO_AUGMENTATION
from fastcifar.data.prepared import load_manifest
from fastcifar.errors import RunFailedError, UserError
from fastcifar.loader import LOADERS, LoaderOptions, open_loader
from fastcifar.loader.base import Loader

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


@pytest.mark.parametrize(
    ("family", "first", "count"),
    [
        ("mixed", 10_000, 60),
        pytest.param("damaged", 0, 1000, marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
        pytest.param("hostile", 0, 1000, marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
    ],
)
def test_damaged_betons_are_refused_or_harmless(family: str, first: int, count: int):
    tally = Tally()
    try_betons(family, first, count, tally)
    assert tally.findings == []
    assert tally.tried == count
    for outcomes in tally.outcomes.values():
        assert outcomes["refused"] > count / 3
        assert outcomes["equal"] > 0  # some of the damage must be harmless, or the comparison is never made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A valid set that a test may damage, of which every batch is a read of its own."""
    monkeypatch.setattr("fastcifar.loader.base.IMAGES_PER_READ", 1)
    write_sound_set(tmp_path)
    return tmp_path


def opened(kind: Any, folder: Path) -> Loader:
    manifest = load_manifest(folder)
    transform = Transform(NO_AUGMENTATION, manifest.mean_01, manifest.std_01)
    options = LoaderOptions(batch_size=10, seed=1, shuffle=True, drop_last=False)
    return open_loader(kind, folder, "train", transform, options)


def assert_same(found: Batches, expected: Batches) -> None:
    for (images, labels), (expected_images, expected_labels) in zip(found, expected, strict=True):
        assert torch.equal(images, expected_images)
        assert torch.equal(labels, expected_labels)


@pytest.mark.parametrize("kind", LOADERS)
def test_a_file_replaced_while_it_is_read(kind: str, folder: Path):
    path = folder / "train.beton"
    with opened(kind, folder) as loader:
        expected = list(loader.epoch(3))
        batches = loader.epoch(3)
        found = [next(batches)]
        (folder / "new").write_bytes(bytes(path.stat().st_size))
        (folder / "new").replace(path)
        assert_same([*found, *batches], expected)  # the opened file still exists, without a name
    with pytest.raises(UserError, match=r"train\.beton"):
        opened(kind, folder)


DAMAGE = {
    "cut short": lambda path: os.truncate(path, path.stat().st_size // 3),
    "emptied": lambda path: os.truncate(path, 0),
    "written to": lambda path: shutil.copyfile(path.with_name("test.beton"), path),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_file_damaged_while_it_is_streamed(damage: Any, folder: Path):
    """A memory map of the file, as FFCV uses it, would kill this process with SIGBUS or give other images."""
    with opened("stream", folder) as loader:
        expected = list(loader.epoch(3))
        batches = loader.epoch(3)
        found = [next(batches)]
        damage(folder / "train.beton")
        with pytest.raises(RunFailedError, match=r"train\.beton.*OSError"):
            found.extend(batches)
    assert len(found) < len(expected)
    assert_same(found, expected[: len(found)])


def test_a_file_emptied_while_the_resident_loader_has_read_it(folder: Path):
    with opened("resident", folder) as loader:
        expected = list(loader.epoch(3))
        os.truncate(folder / "train.beton", 0)
        assert_same(loader.epoch(3), expected)
