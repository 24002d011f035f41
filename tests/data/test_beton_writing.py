"""Writing a set: all or nothing, and an end in every case."""

import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastcifar.data import beton_set
from fastcifar.data.beton_writer import beton_bytes_at_most, write_betons
from fastcifar.data.prepared import (
    RawSet,
    RawSplit,
    SourceInfo,
    finish_commit,
    load_manifest,
    read_split,
    verify,
    write_set,
)
from fastcifar.errors import RunFailedError, UserError

# Writes 40,000 random images into argv[1], as a command would: FFCV's worker has about a second of work.
WRITE = """
import sys, numpy as np
from pathlib import Path
from fastcifar.console import run_command
from fastcifar.data.beton import RawSet, RawSplit, SourceInfo, write_set
def split(count):
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)
    return RawSplit(images_nhwc=images, labels=np.arange(count) % 2)
source = SourceInfo(kind="image-folder", name="random")
raw = RawSet(train=split(int(sys.argv[2])), test=split(20), class_names=("a", "b"), source=source)
run_command(lambda arguments: print(write_set(raw, Path(sys.argv[1])).dataset))
"""


def files_of(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name in ("train.beton", "test.beton", "manifest.json")
    }


def processes() -> dict[int, tuple[int, str]]:
    """Of every live process: its parent and its command line."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if state != "Z":
            found[int(entry.name)] = (int(parent), command)
    return found


def writers_of(folder: Path) -> list[int]:
    """The processes that write into `folder`: FFCV's writer and its worker, parents first."""
    mine = {
        pid: parent
        for pid, (parent, command) in processes().items()
        if "beton_worker" in command and str(folder) in command
    }
    return sorted(mine, key=lambda pid: mine[pid] in mine)


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


def start_writing(folder: Path, count: int = 40_000, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITE, str(folder), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]


def assert_untouched(folder: Path, before: dict[str, str]) -> None:
    assert files_of(folder) == before
    assert not list(folder.glob(".staging-*"))
    assert not (folder / ".commit").exists()
    assert writers_of(folder) == []
    verify(folder)


@pytest.mark.timeout(120)
def test_a_killed_worker_ends_in_an_error(prepared: Path) -> None:
    before, shared_memory = files_of(prepared), set(Path("/dev/shm").glob("psm_*"))
    looks: list[list[int]] = [[]]

    def two_writers_twice() -> bool:
        """A process that is about to become another program has its parent's command line for a moment."""
        looks.append(writers_of(prepared))
        return len(looks[-1]) == 2 and looks[-1] == looks[-2]

    with start_writing(prepared) as process:
        wait_for(lambda: list(prepared.glob(".staging-*/train.beton")) and two_writers_twice())
        os.kill(looks[-1][1], signal.SIGKILL)
        started = time.monotonic()
        output, errors = process.communicate(timeout=60)
        assert time.monotonic() - started < 10
    assert (process.returncode, output) == (1, "")
    assert errors.splitlines()[-1] == "failed: FFCV's writer failed: its worker was ended by SIGKILL"
    assert_untouched(prepared, before)
    wait_for(lambda: not set(Path("/dev/shm").glob("psm_*")) - shared_memory, 5)


@pytest.mark.timeout(120)
def test_a_full_disk_ends_in_an_error(prepared: Path) -> None:
    before = files_of(prepared)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))

    with start_writing(prepared, 100, preexec_fn=limit) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == "failed: FFCV's writer failed: OSError: [Errno 27] File too large"
    assert_untouched(prepared, before)


@pytest.mark.timeout(120)
def test_interrupted_or_killed(prepared: Path) -> None:
    """Ctrl-C leaves nothing behind; SIGKILL leaves no process, and files that the next prepare removes."""
    before = files_of(prepared)
    for number in (signal.SIGINT, signal.SIGKILL):
        with start_writing(prepared) as process:
            wait_for(lambda: len(writers_of(prepared)) >= 1)
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        if number == signal.SIGINT:
            assert process.returncode == 130
            assert errors.splitlines()[-1] == "interrupted"
            assert_untouched(prepared, before)
    wait_for(lambda: writers_of(prepared) == [], 15)
    assert files_of(prepared) == before
    assert list(prepared.glob(".staging-*"))
    finish_commit(prepared)
    assert_untouched(prepared, before)


@pytest.mark.parametrize("fails", [False, True])
def test_interrupted_while_the_writer_starts(
    small_set: RawSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """The moment in which there may be a process already and nobody who knows of it yet."""

    class InterruptedStart(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            signal.raise_signal(signal.SIGINT)
            if fails:
                raise OSError("no process")
            super().__init__(*arguments, **options)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", InterruptedStart)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            write_betons([(tmp_path / "train.beton", small_set.train)])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert writers_of(tmp_path) == []


def test_a_writer_that_stands_still_is_ended(small_set: RawSet, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(RunFailedError, match="written nothing for 0 s; it was ended"):
        write_betons([(tmp_path / "train.beton", small_set.train)], stalled_after_s=0.2)
    assert time.monotonic() - started < 10
    assert writers_of(tmp_path) == []


def test_a_writer_that_cannot_start(small_set: RawSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RunFailedError, match="FFCV's writer failed: it ended with exit status 1"):
        write_betons([(tmp_path / "train.beton", small_set.train)])


def test_thread_counts_are_left_alone(small_set: RawSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "ffcv"]:
        monkeypatch.delitem(sys.modules, name)  # another test may have imported it
    write_set(small_set, tmp_path)
    assert "ffcv" not in sys.modules, "importing ffcv sets torch's and numba's thread counts"


def test_no_space(prepared: Path, small_set: RawSet, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(prepared)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    before = files_of(prepared)
    with pytest.raises(RunFailedError, match="has 1 MB free, the betons need up to 50 MB"):
        write_set(small_set, prepared)
    assert_untouched(prepared, before)


def test_the_space_asked_for_is_enough(written: Path) -> None:
    for split, count in (("train", 230), ("test", 50)):
        size = (written / f"{split}.beton").stat().st_size
        assert size <= beton_bytes_at_most(count) <= size + (9 << 20)


def test_a_set_that_reads_back_otherwise_is_not_kept(prepared: Path, small_set: RawSet, monkeypatch, encode) -> None:
    def write(targets: list[tuple[Path, RawSplit]]) -> None:
        for path, split in targets:
            path.write_bytes(encode(split.images_nhwc[::-1], split.labels))

    monkeypatch.setattr(beton_set, "write_betons", write)
    before = files_of(prepared)
    with pytest.raises(RunFailedError, match=r"train\.beton reads back other than it was written"):
        write_set(small_set, prepared)
    assert_untouched(prepared, before)


def other_set(small_set: RawSet) -> RawSet:
    """Of the same sizes in bytes, with other images."""
    splits = {
        name: RawSplit(images_nhwc=255 - small_set.split(name).images_nhwc, labels=small_set.split(name).labels)
        for name in ("train", "test")
    }
    source = SourceInfo(kind="synthetic", name="other", seed=4)
    return RawSet(class_names=small_set.class_names, source=source, train=splits["train"], test=splits["test"])


@pytest.mark.parametrize("moves", [0, 1, 2])
def test_a_crash_between_the_moves(
    moves: int, prepared: Path, small_set: RawSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, done = os.replace, []

    def crash(source: Path, target: Path) -> None:
        if Path(source).parent.name == ".commit":
            if len(done) == moves:
                raise SystemExit("the power goes")
            done.append(source)
        replace(source, target)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(SystemExit):
        write_set(other_set(small_set), prepared)
    monkeypatch.undo()
    for split in ("train", "test"):  # the old images or an error, never the new ones under the old manifest
        changed = moves >= (1 if split == "train" else 2)
        if changed:
            with pytest.raises(UserError, match="is damaged or from another run: its SHA-256 is"):
                read_split(prepared, split)
        else:
            np.testing.assert_array_equal(read_split(prepared, split)[0], small_set.split(split).images_nhwc)
    assert finish_commit(prepared)
    np.testing.assert_array_equal(read_split(prepared, "train")[0], 255 - small_set.train.images_nhwc)
    assert load_manifest(prepared).source.seed == 4
    assert not finish_commit(prepared)


def test_left_overs_are_removed(prepared: Path) -> None:
    before = files_of(prepared)
    (prepared / ".staging-123").mkdir()
    (prepared / ".staging-123" / "train.beton").write_bytes(b"winograd-fp16")
    (prepared / ".manifest.json.abc.part").write_text("winograd-fp16")
    assert not finish_commit(prepared)
    assert_untouched(prepared, before)
    assert not (prepared / ".manifest.json.abc.part").exists()
