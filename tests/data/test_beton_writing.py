"""Writing a set is all or nothing, and it never hangs."""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastcifar.data import beton_set
from fastcifar.data.beton_writer import max_beton_bytes, write_betons
from fastcifar.data.prepared import RawSet, RawSplit, finish_commit, load_manifest, read_split, verify, write_set
from fastcifar.errors import RunFailedError, UserError
from fastcifar.files import digest

# Writes argv[2] random images into argv[1], as a command would. For 40,000 FFCV's worker needs about a second.
WRITE = """
import sys, numpy as np
from pathlib import Path
from fastcifar.cli.console import run_command
from fastcifar.data.prepared import RawSet, RawSplit, SourceInfo, write_set
def split(count):
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)
    return RawSplit(images_nhwc=images, labels=np.arange(count) % 2)
source = SourceInfo(kind="image-folder", name="random")
raw = RawSet(train=split(int(sys.argv[2])), test=split(20), class_names=("a", "b"), source=source)
run_command(lambda arguments: print(write_set(raw, Path(sys.argv[1])).dataset))
"""


def files_of(folder: Path) -> dict[str, str]:
    return {name: digest(folder / name) for name in ("train.beton", "test.beton", "manifest.json")}


def writers_of(folder: Path) -> list[int]:
    """Process ids of FFCV's writer and its worker that write into `folder`, the writer first."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_text()
            if "beton_worker" in command and str(folder) in command:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return sorted(parents, key=lambda pid: parents[pid] in parents)


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def start_writing(folder: Path, count: int, **options: object) -> subprocess.Popen[str]:
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
    seen: list[list[int]] = [[]]

    def worker_runs() -> bool:
        """Seen twice, because a forked process has its parent's command line until it runs another program."""
        seen.append(writers_of(prepared))
        return len(seen[-1]) == 2 and seen[-1] == seen[-2]

    with start_writing(prepared, 40_000) as process:
        wait_for(lambda: list(prepared.glob(".staging-*/train.beton")) and worker_runs())
        os.kill(seen[-1][1], signal.SIGKILL)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "")
    assert "SIGKILL" in errors.splitlines()[-1]
    assert_untouched(prepared, before)
    wait_for(lambda: not set(Path("/dev/shm").glob("psm_*")) - shared_memory)


@pytest.mark.timeout(120)
def test_a_full_disk_ends_in_an_error(prepared: Path) -> None:
    before = files_of(prepared)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))

    with start_writing(prepared, 100, preexec_fn=limit) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "File too large" in errors.splitlines()[-1]
    assert_untouched(prepared, before)


@pytest.mark.timeout(120)
def test_interrupted_or_killed(prepared: Path) -> None:
    """Ctrl-C leaves nothing behind. SIGKILL leaves no process, but files that the next prepare removes."""
    before = files_of(prepared)
    for number in (signal.SIGINT, signal.SIGKILL):
        with start_writing(prepared, 40_000) as process:
            wait_for(lambda: writers_of(prepared))
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        if number == signal.SIGINT:
            assert process.returncode == 130
            assert errors.splitlines()[-1] == "interrupted"
            assert_untouched(prepared, before)
    wait_for(lambda: not writers_of(prepared))
    assert files_of(prepared) == before
    assert list(prepared.glob(".staging-*"))
    finish_commit(prepared)
    assert_untouched(prepared, before)


@pytest.mark.parametrize("fails", [False, True])
def test_interrupted_while_the_writer_starts(
    small_set: RawSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """Ctrl-C inside Popen, when a process may exist that the caller has no handle of."""

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


def test_one_cpu_is_enough(small_set: RawSet, tmp_path: Path) -> None:
    """With one CPU, a normal exit of FFCV's process hangs."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        write_betons([(tmp_path / "train.beton", small_set.train)], stalled_after_s=60)
    finally:
        os.sched_setaffinity(0, before)


def test_a_stalled_writer_is_ended(small_set: RawSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "ffcv"]:
        monkeypatch.delitem(sys.modules, name)  # another test may have imported it
    with pytest.raises(RunFailedError, match="nothing for 0 s"):
        write_betons([(tmp_path / "train.beton", small_set.train)], stalled_after_s=0.2)
    assert writers_of(tmp_path) == []
    assert "ffcv" not in sys.modules, "importing FFCV changes the thread counts of torch and numba"


def test_a_writer_that_cannot_start(small_set: RawSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RunFailedError, match="exit status 1"):
        write_betons([(tmp_path / "train.beton", small_set.train)])


def test_no_space(prepared: Path, small_set: RawSet, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(prepared)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    before = files_of(prepared)
    with pytest.raises(RunFailedError, match=r"1 MB free.* 50 MB"):
        write_set(small_set, prepared)
    assert_untouched(prepared, before)


def test_the_largest_size_is_an_upper_bound(written: Path) -> None:
    for split, count in (("train", 230), ("test", 50)):
        size = (written / f"{split}.beton").stat().st_size
        assert size <= max_beton_bytes(count) <= size + (9 << 20)


def test_a_set_that_reads_back_differently_is_not_kept(prepared: Path, small_set: RawSet, monkeypatch, encode) -> None:
    def write(targets: list[tuple[Path, RawSplit]]) -> None:
        for path, split in targets:
            path.write_bytes(encode(split.images_nhwc[::-1], split.labels))

    monkeypatch.setattr(beton_set, "write_betons", write)
    before = files_of(prepared)
    with pytest.raises(RunFailedError, match=r"train\.beton"):
        write_set(small_set, prepared)
    assert_untouched(prepared, before)


def inverted(split: RawSplit) -> RawSplit:
    return replace(split, images_nhwc=255 - split.images_nhwc)


@pytest.mark.parametrize("moves", [0, 1, 2])
def test_a_crash_between_the_moves(
    moves: int, prepared: Path, small_set: RawSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, done = os.replace, []

    def crash(source: Path, target: Path) -> None:
        if Path(source).parent.name == ".commit":
            if len(done) == moves:
                raise SystemExit("power failure")
            done.append(source)
        rename(source, target)

    monkeypatch.setattr(os, "replace", crash)
    train, test, source = inverted(small_set.train), inverted(small_set.test), replace(small_set.source, seed=4)
    with pytest.raises(SystemExit):
        write_set(replace(small_set, train=train, test=test, source=source), prepared)
    monkeypatch.undo()
    for split in ("train", "test"):  # the old images or an error, never new images with the old manifest
        if moves >= (1 if split == "train" else 2):
            with pytest.raises(UserError, match="SHA-256"):
                read_split(prepared, split)
        else:
            np.testing.assert_array_equal(read_split(prepared, split)[0], small_set.split(split).images_nhwc)
    assert finish_commit(prepared)
    np.testing.assert_array_equal(read_split(prepared, "train")[0], train.images_nhwc)
    assert load_manifest(prepared).source.seed == 4
    assert not finish_commit(prepared)


def test_leftovers_of_killed_runs_are_removed(prepared: Path) -> None:
    before = files_of(prepared)
    (prepared / ".staging-123").mkdir()
    (prepared / ".staging-123" / "train.beton").write_bytes(b"partial")
    (prepared / ".manifest.json.abc.part").write_text("partial")
    assert not finish_commit(prepared)
    assert_untouched(prepared, before)
    assert not (prepared / ".manifest.json.abc.part").exists()
