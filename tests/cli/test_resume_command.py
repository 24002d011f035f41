"""Interrupting the train command and going on with it, as a user does."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]
SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
DEADLINE_S = 60


def arguments(data: Path, runs: Path, *more: object) -> list[str]:
    """A run of some seconds on the small set."""
    start = ["train", "--recipe", "smoke", "--data", data, "--runs", runs, "--batch-size", 50, "--threads", 1]
    network = ["--model.widths", 8, 8, "--amp", "float32", "--evaluate-every", 0]
    return [str(argument) for argument in [*start, *network, *more]]


def started(*more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-m", "fastcifar", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def own_lines(errors: str) -> list[str]:
    return [line for line in errors.splitlines() if line and " steps/s " not in line]


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_leaves_a_checkpoint_and_says_how_to_go_on(
    number: signal.Signals, code: int, small_data: Path, tmp_path: Path, command: Command
) -> None:
    process = started(*arguments(small_data, tmp_path, "--epochs", 20))
    wait_for(process, lambda: any(path.stat().st_size for path in tmp_path.glob("*/metrics.jsonl")))
    process.send_signal(number)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out) == (code, "")
    (folder,) = tmp_path.iterdir()
    asked, told = own_lines(err)
    assert asked == "stopping after this step; once more ends at once and leaves the last checkpoint"
    found = re.fullmatch(r"stopped after step (\d+) of 240; go on with python -m fastcifar\.train --resume (.+)", told)
    assert found is not None, told
    assert found[2] == str(folder)
    (checkpoint,) = (folder / "checkpoints").iterdir()
    assert checkpoint.name == f"step-{int(found[1]):08d}.safetensors"
    assert not (folder / "record.json").exists()

    done = command("train", "--resume", folder)
    assert done.code == 0, done
    record = json.loads((folder / "record.json").read_text())
    assert record["resumed_at"] == [int(found[1])]
    whole = command(*arguments(small_data, tmp_path / "whole", "--epochs", 20))
    assert whole.code == 0
    (uninterrupted,) = (tmp_path / "whole").glob("*/record.json")
    assert record["weights_sha256"] == json.loads(uninterrupted.read_text())["weights_sha256"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "step"] == list(range(240))
    assert command("train", "--resume", folder).refused() == (
        f"{folder} is finished, there is nothing to resume; see its record.json"
    )


def test_a_second_signal_ends_at_once_and_leaves_the_checkpoint_before(small_data: Path, tmp_path: Path) -> None:
    # the process is stopped between the two, so that the second comes before the step ends
    process = started(*arguments(small_data, tmp_path, "--epochs", 5000, "--checkpoint-every", 10))
    wait_for(process, lambda: len(list(tmp_path.glob("*/checkpoints/step-*"))) > 0)
    process.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode in (-signal.SIGINT, -signal.SIGTERM)
    (folder,) = tmp_path.iterdir()
    from fastcifar.runs.checkpoint import checkpoint_files, read_checkpoint

    files = checkpoint_files(folder)
    assert files
    assert all(read_checkpoint(file).step % 10 == 0 for file in files)


def test_auto_goes_on_with_the_run_of_these_settings(small_data: Path, tmp_path: Path, command: Command) -> None:
    process = started(*arguments(small_data, tmp_path, "--epochs", 5000, "--checkpoint-every", 20))
    wait_for(process, lambda: len(list(tmp_path.glob("*/checkpoints/step-*"))) > 1)
    process.kill()
    process.communicate()
    (killed,) = tmp_path.iterdir()
    other = command(*arguments(small_data, tmp_path, "--epochs", 1), "--resume", "auto")
    assert (other.code, other.err.splitlines()[0]) == (0, "resuming nothing: a new run begins")
    process = started(*arguments(small_data, tmp_path, "--epochs", 5000, "--resume", "auto"))
    process_error = process.stderr
    assert process_error is not None
    assert process_error.readline() == f"resuming {killed}\n"
    process.terminate()
    process.communicate(timeout=DEADLINE_S)


def test_a_run_that_is_being_trained_is_not_trained_twice(small_data: Path, tmp_path: Path, command: Command) -> None:
    process = started(*arguments(small_data, tmp_path, "--epochs", 5000))
    wait_for(process, lambda: any(path.stat().st_size for path in tmp_path.glob("*/metrics.jsonl")))
    (folder,) = tmp_path.iterdir()
    assert command("train", "--resume", folder).refused() == (
        f"{folder} is being trained by another process; wait for it, or start a new run"
    )
    process.kill()
    process.communicate()


def test_changed_settings_are_refused_by_name(small_data: Path, tmp_path: Path, command: Command) -> None:
    process = started(*arguments(small_data, tmp_path, "--epochs", 5000))
    wait_for(process, lambda: any(path.stat().st_size for path in tmp_path.glob("*/metrics.jsonl")))
    process.kill()
    process.communicate()
    (folder,) = tmp_path.iterdir()
    refused = command("train", "--resume", folder, "--epochs", 6, "--optimizer.lr", 0.1).refused()
    assert refused == (
        f"{folder} cannot be resumed with other settings: epochs is 6.0, was 5000.0; optimizer.lr is 0.1, was 0.24; "
        "or start a new run"
    )
    refused = command("train", "--resume", tmp_path / "nothing").refused()
    assert refused == f"no run is called {tmp_path / 'nothing'}, neither as a path nor in runs"
