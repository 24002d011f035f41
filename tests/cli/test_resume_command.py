"""Interrupting `fastcifar train` by a signal and resuming it."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastcifar.runs.checkpoint import checkpoint_files, read_checkpoint

Command = Callable[..., Any]
DEADLINE_S = 120


def arguments(data: Path, runs: Path, *more: object) -> list[str]:
    """A run of about a second on the small set, as arguments of `fastcifar train`."""
    start = ["--recipe", "smoke", "--data", data, "--runs", runs, "--batch-size", 50, "--threads", 1]
    network = ["--model.widths", 8, 8, "--amp", "float32", "--cpu-kernels", "torch", "--evaluate-every", 0]
    return [str(argument) for argument in [*start, *network, *more]]


def started(module: str, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-m", *module.split(), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_signal_leaves_a_checkpoint_and_the_resumed_run_has_the_same_weights(
    small_data: Path, tmp_path: Path, command: Command
) -> None:
    runs, flags = tmp_path / "runs", arguments(small_data, tmp_path / "runs", "--epochs", 20)
    process = started("fastcifar train", *flags)
    wait_for(process, lambda: any(path.stat().st_size for path in runs.glob("*/metrics.jsonl")))
    process.send_signal(signal.SIGSTOP)
    (folder,) = runs.iterdir()
    assert str(folder) in command("train", "--resume", folder).refused()  # two processes must not train one run
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out) == (143, "")
    told = [line for line in err.splitlines() if line and " steps/s " not in line][-1]
    found = re.search(r"stopped after step (\d+) of 240", told)
    assert found, told
    assert f"--resume {folder}" in told
    (checkpoint,) = (folder / "checkpoints").iterdir()
    assert checkpoint.name == f"step-{int(found[1]):08d}.safetensors"
    assert not (folder / "record.json").exists()

    refused = command("train", "--resume", folder, "--epochs", 6, "--optimizer.lr", 0.1).refused()
    assert "epochs is 6.0, was 20.0; optimizer.lr is 0.1, was 0.24" in refused
    assert "--resume" in command("train", "--resume", folder, "--lr", "found").refused()
    other = command("train", *arguments(small_data, runs, "--epochs", 0.5), "--resume", "auto")
    assert other.code == 0
    assert str(folder) not in other.out
    done = command("train", *flags, "--resume", "auto")
    assert done.code == 0, done
    assert str(folder) in done.err.splitlines()[0]
    record = json.loads((folder / "record.json").read_text())
    assert record["resumed_at"] == [int(found[1])]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "step"] == list(range(240))
    assert str(folder) in command("train", "--resume", folder).refused()  # it is finished

    assert command("train", *arguments(small_data, tmp_path / "whole", "--epochs", 20)).code == 0
    (uninterrupted,) = (tmp_path / "whole").glob("*/record.json")
    assert record["weights_sha256"] == json.loads(uninterrupted.read_text())["weights_sha256"]


def test_a_second_signal_stops_immediately(small_data: Path, tmp_path: Path) -> None:
    process = started("fastcifar.train", *arguments(small_data, tmp_path, "--epochs", 5000, "--checkpoint-every", 10))
    wait_for(process, lambda: len(list(tmp_path.glob("*/checkpoints/step-*"))) > 0)
    process.send_signal(signal.SIGSTOP)  # so that the second signal comes before the step ends
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode in (-signal.SIGINT, -signal.SIGTERM)
    (folder,) = tmp_path.iterdir()
    files = checkpoint_files(folder)
    assert files
    assert all(read_checkpoint(file).step % 10 == 0 for file in files)
