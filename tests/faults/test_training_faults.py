"""What the machine can do to a training: a full disk, a folder that cannot be written to."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

KIB = 1024


def arguments(data: Path, runs: Path, *more: object) -> list[str]:
    start = ["train", "--recipe", "smoke", "--data", data, "--runs", runs, "--batch-size", 50, "--threads", 1]
    return [str(item) for item in [*start, "--model.widths", 8, 8, "--amp", "float32", "--epochs", 3, *more]]


def run(command: list[str], largest_file: int | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, with a limit on the size of the files it writes, which acts like a full disk."""

    def limit() -> None:
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "fastcifar", *command],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=limit,
        env={**os.environ, **environment},
    )


def own_lines(errors: str) -> list[str]:
    return [line for line in errors.splitlines() if line and " steps/s " not in line]


def test_no_room_for_checkpoints_and_weights(small_data: Path, tmp_path: Path) -> None:
    done = run(arguments(small_data, tmp_path, "--checkpoint-every", 10), largest_file=14 * KIB)
    (folder,) = tmp_path.iterdir()
    assert (done.returncode, done.stdout) == (1, "")
    *warnings, last = own_lines(done.stderr)
    assert [line.split(": ")[0] for line in warnings] == [f"no checkpoint after step {n}" for n in (10, 20, 30, 36)]
    assert all("File too large" in line for line in warnings)
    assert last.startswith(f"failed: {folder}: cannot write {folder / 'weights.safetensors'}: ")
    assert last.endswith(f"; mend that and go on with python -m fastcifar.train --resume {folder}")
    assert {path.name for path in folder.rglob("*")} == {"config.toml", "metrics.jsonl", "checkpoints"}

    done = run(["train", "--resume", str(folder)])  # there is room again
    assert done.returncode == 0, done.stderr
    assert (folder / "record.json").exists()


def test_no_room_for_metrics(small_data: Path, tmp_path: Path) -> None:
    done = run(arguments(small_data, tmp_path, "--checkpoint-every", 0), largest_file=3 * KIB)
    (folder,) = tmp_path.iterdir()
    assert (done.returncode, done.stdout) == (1, "")
    assert own_lines(done.stderr) == [
        f"failed: {folder}: File too large; mend that and go on with python -m fastcifar.train --resume {folder}"
    ]
    done = run(["train", "--resume", str(folder)])
    assert done.returncode == 0, done.stderr


def test_no_room_for_the_settings(small_data: Path, tmp_path: Path) -> None:
    done = run(arguments(small_data, tmp_path), largest_file=100)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = own_lines(done.stderr)
    assert line == "failed: [Errno 27] File too large"


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that not even root can write to."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    if subprocess.run(["mount", "--bind", folder, folder], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], capture_output=True, check=True)
        yield folder
    finally:
        subprocess.run(["umount", folder], capture_output=True, check=True)


def test_runs_cannot_be_written_to(small_data: Path, read_only: Path) -> None:
    done = run(arguments(small_data, read_only))
    message = f"error: cannot make a run folder in {read_only}: Read-only file system; choose another --runs\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)


def test_a_run_whose_folder_became_read_only(small_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "run"
    folder.mkdir(parents=True)
    done = run(arguments(small_data, tmp_path / "other"))
    assert done.returncode == 0
    (finished,) = (tmp_path / "other").iterdir()
    (folder / "config.toml").write_bytes((finished / "config.toml").read_bytes())
    if subprocess.run(["mount", "--bind", folder, folder], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], capture_output=True, check=True)
        done = run(["train", "--resume", str(folder)])
    finally:
        subprocess.run(["umount", folder], capture_output=True, check=True)
    message = f"error: cannot write to {folder}: Read-only file system; a run needs its folder\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)
