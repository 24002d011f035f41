"""Prepares that meet each other, a full disk, a read-only folder or SIGKILL: the old set, the new one or an error."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from mutations import write_sound_set
from places import read_only, small_disk

from fastcifar.data import beton_set
from fastcifar.data.prepared import read_split, verify, write_set
from fastcifar.data.sources.synthetic import synthetic_set
from fastcifar.errors import RunFailedError, UserError

OLD = 8
FILES = ("train.beton", "test.beton", "manifest.json")


def prepare(out: Path, seed: int, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fastcifar.prepare", "--source", "synthetic", "--out", str(out)]
    command += ["--synthetic-train", "3000", "--synthetic-test", "100", "--seed", str(seed), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with a set of seed OLD."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_sound_set(folder)
    return folder


def seed_in(folder: Path) -> int | None:
    """The seed of the sound set in a folder."""
    return verify(folder).source.seed


@pytest.mark.parametrize(("seeds", "written"), [((5, 5), 1), pytest.param((5, 6), 2, marks=pytest.mark.slow)])
def test_two_at_once(seeds: tuple[int, int], written: int, tmp_path: Path):
    """The second waits, and then has the set it wants already, or writes its own."""
    done = [finish(process) for process in [prepare(tmp_path, seed) for seed in seeds]]
    assert [code for code, _, _ in done] == [0, 0], done
    assert sum("done in " in shown for _, shown, _ in done) == written
    assert sum(f"another process is preparing {tmp_path}; waiting for it" in said for _, _, said in done) == 1
    assert seed_in(tmp_path) in seeds
    assert {path.name for path in tmp_path.iterdir()} <= {*FILES, ".lock", ".verified.json"}


def test_a_disk_that_is_too_small(tmp_path: Path):
    with small_disk(tmp_path / "disk", 20) as disk:
        code, _, errors = finish(prepare(disk / "data", 2))
        assert (code, errors.count("\n")) == (1, 1)
        assert "failed: " in errors
        assert "MB free, the betons need up to " in errors


@pytest.mark.parametrize("mebibytes", [9, *(pytest.param(size, marks=pytest.mark.slow) for size in (6, 18, 26, 33))])
def test_a_disk_that_fills_up_meanwhile(mebibytes: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As when somebody else takes the space that was free at the start; at any of the pages of either file."""
    monkeypatch.setattr(beton_set, "_check_free_space", lambda raw, out: None)
    raw = synthetic_set(train=3000, test=20, seed=2)  # betons of 24 and 16 MiB
    with small_disk(tmp_path / "disk", mebibytes) as disk:
        with pytest.raises(RunFailedError, match=r"FFCV's writer failed: |does not read back as it was written"):
            write_set(raw, disk)
        assert list(disk.iterdir()) == []


def test_a_read_only_folder(old: Path):
    with read_only(old):
        code, _, errors = finish(prepare(old, 2, "--force"))
        assert code == 1
        assert errors.startswith("failed: ")
        assert errors.count("\n") == 1
        assert seed_in(old) == OLD  # and it can be used


def kill_somewhen(out: Path, seed: int, after_s: float) -> None:
    """Starts a prepare and ends it, unless it was faster."""
    process = prepare(out, seed, "--force")
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)


def check_kills(folder: Path, kills: int, longest_s: float) -> dict[str, int]:
    """Kills prepares that want the other of two sets; each time it is the old one, the new one, or an error."""
    generator, found = random.Random(kills), {"old": 0, "new": 0, "refused": 0}
    seed: int | None = OLD
    for _ in range(kills):
        wanted = 3 if seed == 2 else 2
        kill_somewhen(folder, wanted, generator.uniform(0.5, longest_s))
        try:
            now = seed_in(folder)
            assert now in (seed, wanted)
            found["new" if now == wanted else "old"] += 1
        except UserError:  # it says that another prepare mends it, which is tried now
            found["refused"] += 1
        code, _, errors = finish(prepare(folder, wanted))
        assert code == 0, errors
        assert seed_in(folder) == wanted
        assert {path.name for path in folder.iterdir()} <= {*FILES, ".lock", ".verified.json"}
        seed = wanted
    return found


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_at_many_random_moments(old: Path):
    found = check_kills(old, 40, 8.0)
    print(found)
    assert found["old"] > 0
    assert found["new"] > 0


def test_an_ordinary_user_may_use_what_root_has_prepared():
    """Nothing is written to use a set: the note of what was checked is left out where it cannot be."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_sound_set(folder)
        folder.chmod(0o755)
        child = os.fork()
        if child == 0:
            os.setgid(65534)
            os.setuid(65534)
            try:
                code = 0 if len(read_split(folder, "train")[1]) == 300 else 3
            except BaseException:  # noqa: BLE001  (it must end here, whatever it is)
                code = 4
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert not (folder / ".verified.json").exists()
