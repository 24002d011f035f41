"""`prepare` beside another one, on a full disk, in a read-only folder or under SIGKILL keeps the old set or the new."""

import os
import random
import re
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
    """The seed of the set in a folder; UserError if the set is damaged."""
    return verify(folder).source.seed


@pytest.mark.parametrize("seeds", [(5, 5), pytest.param((5, 6), marks=pytest.mark.slow)])
def test_two_at_the_same_time(seeds: tuple[int, int], tmp_path: Path):
    """One waits for the other, then finds the same set or writes its own."""
    done = [finish(process) for process in [prepare(tmp_path, seed) for seed in seeds]]
    assert [code for code, _, _ in done] == [0, 0], done
    assert sum("done in " in out for _, out, _ in done) == len(set(seeds))
    assert seed_in(tmp_path) in seeds
    assert {path.name for path in tmp_path.iterdir()} <= {*FILES, ".lock", ".verified.json"}


def test_a_disk_that_is_too_small(tmp_path: Path):
    with small_disk(tmp_path / "disk", 20) as disk:
        code, _, errors = finish(prepare(disk / "data", 2))
    assert (code, errors.count("\n")) == (1, 1), errors
    assert re.match(r"failed: .* MB free", errors), errors


@pytest.mark.parametrize("mebibytes", [9, *(pytest.param(size, marks=pytest.mark.slow) for size in (6, 18, 26, 33))])
def test_a_disk_that_fills_up_while_writing(mebibytes: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As if another process took the space that was free at the start; at several pages of either file."""
    monkeypatch.setattr(beton_set, "_check_free_space", lambda raw, out: None)
    raw = synthetic_set(train=3000, test=20, seed=2)  # betons of 24 and 16 MiB
    with small_disk(tmp_path / "disk", mebibytes) as disk:
        with pytest.raises(RunFailedError):
            write_set(raw, disk)
        assert list(disk.iterdir()) == []


def test_a_read_only_folder(old: Path):
    with read_only(old):
        code, _, errors = finish(prepare(old, 2, "--force"))
        assert (code, errors.count("\n")) == (1, 1), errors
        assert errors.startswith("failed: ")
        assert seed_in(old) == OLD  # it can still be read


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_at_random_moments(old: Path):
    """Kills processes that prepare the other of two sets. The folder then has the old set, the new one or an error."""
    generator, kept, replaced, seed = random.Random(40), 0, 0, OLD
    for _ in range(40):
        wanted = 3 if seed == 2 else 2
        process = prepare(old, wanted, "--force")
        time.sleep(generator.uniform(0.5, 8.0))
        process.kill()
        process.communicate(timeout=60)
        try:
            now = seed_in(old)
            assert now in (seed, wanted)
            kept, replaced = kept + (now == seed), replaced + (now == wanted)
        except UserError:  # the next prepare repairs the folder
            pass
        code, _, errors = finish(prepare(old, wanted))
        assert code == 0, errors
        assert seed_in(old) == wanted
        assert {path.name for path in old.iterdir()} <= {*FILES, ".lock", ".verified.json"}
        seed = wanted
    assert kept > 0
    assert replaced > 0


def test_another_user_can_read_what_root_has_prepared():
    """Reading a set needs no write access: the cache of verified files is then not written."""
    if os.geteuid() != 0:
        pytest.skip("only root can change its user")
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
            except BaseException:  # noqa: BLE001  (the child must not return into pytest)
                code = 4
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert not (folder / ".verified.json").exists()
