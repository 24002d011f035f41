"""Damaged betons: refused, or the batches of the undamaged ones; never a crash, a hang or another image."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mutations import write_sound_set
from watch import Tally, try_betons

from fastcifar.augment.transform import Transform
from fastcifar.config import NO_AUGMENTATION
from fastcifar.data.prepared import RawSet, load_manifest
from fastcifar.errors import RunFailedError, UserError
from fastcifar.loader import open_loader
from fastcifar.loader.base import Loader


def check(family: str, first: int, count: int) -> Tally:
    tally = Tally()
    try_betons(family, first, count, tally)
    assert tally.findings == []
    assert tally.tried == count
    for outcomes in tally.outcomes.values():
        assert outcomes["refused"] > count / 3
        assert outcomes["equal"] > 0  # or the damage was not small enough to tell anything
    return tally


def test_a_damaged_beton_is_refused_or_harmless():
    check("mixed", 10_000, 100)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("family", ["damaged", "hostile"])
def test_a_thousand_damaged_betons(family: str):
    check(family, 0, 1000)


@pytest.fixture
def sound(tmp_path: Path) -> tuple[Path, RawSet]:
    return tmp_path, write_sound_set(tmp_path)


def opened(kind: str, folder: Path) -> Loader:
    manifest = load_manifest(folder)
    transform = Transform(NO_AUGMENTATION, manifest.mean_01, manifest.std_01)
    options = {"batch_size": 10, "seed": 1, "shuffle": True, "drop_last": False}
    return open_loader(kind, folder, "train", transform, **options)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def small_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastcifar.loader.base.TOGETHER", 1)  # or one read would take the whole set at once


@pytest.mark.parametrize("kind", ["stream", "resident"])
def test_replaced_while_it_is_read(kind: str, sound: tuple[Path, RawSet]):
    folder, _ = sound
    path = folder / "train.beton"
    with opened(kind, folder) as loader:
        expected = list(loader.epoch(3))
        batches = loader.epoch(3)
        found = [next(batches)]
        (folder / "new").write_bytes(bytes(path.stat().st_size))
        (folder / "new").replace(path)
        found += batches  # the file that was opened is still there, under no name
        for mine, theirs in zip(found, expected, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    with pytest.raises(UserError, match="damaged"):
        opened(kind, folder)


DAMAGE = {
    "cut short": lambda path: os.truncate(path, path.stat().st_size // 3),
    "emptied": lambda path: os.truncate(path, 0),
    "written to": lambda path: shutil.copyfile(path.with_name("test.beton"), path),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_in_place_while_it_is_read(damage, sound: tuple[Path, RawSet]):
    """A map of the file, as FFCV makes it, would end this process with SIGBUS or give other images."""
    folder, _ = sound
    with opened("stream", folder) as loader:
        expected = list(loader.epoch(3))
        batches = loader.epoch(3)
        found = [next(batches)]
        damage(folder / "train.beton")
        with pytest.raises(RunFailedError, match=r"reading .*train\.beton failed: OSError: "):
            found.extend(batches)
    for mine, theirs in zip(found, expected, strict=False):  # a few were read before
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert len(found) < len(expected)


def test_damaged_in_place_while_the_resident_loader_has_it(sound: tuple[Path, RawSet]):
    folder, _ = sound
    with opened("resident", folder) as loader:
        expected = list(loader.epoch(3))
        DAMAGE["emptied"](folder / "train.beton")
        for mine, theirs in zip(loader.epoch(3), expected, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_a_map_of_the_file_would_end_the_process(sound: tuple[Path, RawSet]):
    """Why nothing here maps a beton: what happens to a map when its file is cut short."""
    code = """
import os, sys, numpy as np
mapped = np.memmap(sys.argv[1], np.uint8, mode="r")
os.truncate(sys.argv[1], 100)
mapped[1 << 20]
"""
    done = subprocess.run([sys.executable, "-c", code, str(sound[0] / "train.beton")], check=False)
    assert done.returncode == -7  # SIGBUS
