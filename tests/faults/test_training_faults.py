"""Training on a full disk and in a folder that cannot be written to."""

import contextlib
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from places import read_only

KIB = 1024
Command = Callable[..., Any]


@pytest.fixture
def smoke(finished: Any, small_data: Path, tmp_path: Path, command: Command) -> Callable[..., Any]:
    """Trains for 12 steps into tmp_path; `finished` has compiled the kernels, so a small disk can hold their cache."""
    small = ["--batch-size", 50, "--threads", 1, "--model.widths", 8, 8, "--amp", "float32", "--cpu-kernels", "torch"]
    data = ["--recipe", "smoke", "--data", small_data, "--runs", tmp_path / "runs", "--epochs", 1]
    return lambda *more: command("train", *data, *small, *more)


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A limit on the size of the files this process writes, which acts like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def own_lines(errors: str) -> list[str]:
    return [line for line in errors.splitlines() if line and " steps/s " not in line]


def test_no_room_for_checkpoints_and_weights(smoke: Command, tmp_path: Path, command: Command) -> None:
    with largest_file(14 * KIB):
        done = smoke("--checkpoint-every", 5)
    (folder,) = (tmp_path / "runs").iterdir()
    assert (done.code, done.out) == (1, "")
    *warnings, last = own_lines(done.err)
    assert [f"step {step}: " in line for step, line in zip((5, 10, 12), warnings, strict=True)] == [True] * 3
    assert last.startswith("failed: ")
    assert str(folder / "weights.safetensors") in last
    assert f"--resume {folder}" in last
    assert {path.name for path in folder.rglob("*")} == {"config.toml", "metrics.jsonl", "checkpoints"}
    assert command("train", "--resume", folder).code == 0
    assert (folder / "record.json").exists()


def test_no_room_for_metrics(smoke: Command, tmp_path: Path, command: Command) -> None:
    with largest_file(1100):
        done = smoke("--checkpoint-every", 0, "--epochs", 2)
    (folder,) = (tmp_path / "runs").iterdir()
    assert (done.code, done.out) == (1, "")
    (line,) = own_lines(done.err)
    assert line.startswith("failed: ")
    assert f"--resume {folder}" in line
    assert command("train", "--resume", folder).code == 0


def test_no_room_for_the_settings(smoke: Command) -> None:
    with largest_file(100):
        done = smoke()
    assert (done.code, done.out) == (1, "")
    (line,) = own_lines(done.err)
    assert line.startswith("failed: ")


def test_a_run_whose_folder_became_read_only(finished: Any, tmp_path: Path, command: Command) -> None:
    shutil.copy(finished.folder / "config.toml", tmp_path)
    with read_only(tmp_path):
        assert str(tmp_path) in command("train", "--resume", tmp_path).refused()
