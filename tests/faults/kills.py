"""Runs that are killed at random moments and resumed until they are finished."""

import json
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from fastcifar.recipes import load_config
from fastcifar.runs.checkpoint import checkpoint_files, read_checkpoint

EARLY_FRACTION = 0.2  # of the kills may come before training starts, while Python still imports
LONGEST_WAIT_S = 1.5  # after the first sign of training
GIVE_UP_S = 120


@dataclass
class Soak:
    """The results of a number of kills."""

    kills: int = 0
    runs: int = 0
    moments: list[int] = field(default_factory=list)  # step of the newest checkpoint after each kill, 0 without one
    left_parts: int = 0  # temporary files of interrupted writes
    different: list[str] = field(default_factory=list)  # digests of weights that are not those of the whole run


def arguments(data: Path, epochs: int) -> list[str]:
    """A short run that writes a checkpoint after every step, so that many kills hit a write."""
    start = ["--recipe", "smoke", "--data", data, "--batch-size", 50, "--threads", 1, "--checkpoint-every", 1]
    small = ["--model.widths", 16, 32, "--amp", "float32", "--cpu-kernels", "torch", "--epochs", epochs]
    return [str(item) for item in [*start, *small]]


def train(arguments: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "fastcifar", "train", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def weights_of(folder: Path) -> str:
    return json.loads((folder / "record.json").read_text())["weights_sha256"]


def soak(arguments: list[str], runs: Path, *, kills: int, seed: int) -> Soak:
    """Trains `arguments` once without a kill, then with `kills` kills; starts a new run whenever one finishes."""
    generator = random.Random(seed)
    assert train([*arguments, "--runs", str(runs / "whole")]).wait(GIVE_UP_S) == 0
    expected = weights_of(next((runs / "whole").iterdir()))
    result, folder = Soak(), runs
    while result.kills < kills or not is_finished(folder):
        if is_finished(folder) or not (folder / "config.toml").exists():
            result.runs += 1
            home = runs / f"run-{result.runs}"
            folder = _train_and_kill([*arguments, "--runs", str(home)], home, generator, result, kills)
        else:
            _train_and_kill(["--resume", str(folder)], folder.parent, generator, result, kills)
        _check_readable(folder, result)
        if is_finished(folder) and weights_of(folder) != expected:
            result.different.append(weights_of(folder))
    return result


def is_finished(folder: Path) -> bool:
    return (folder / "record.json").exists()


def _train_and_kill(arguments: list[str], home: Path, generator: random.Random, result: Soak, kills: int) -> Path:
    """Trains until the end or a random moment, or to the end if `kills` is reached; returns the run's folder."""
    process, started = train(arguments), time.time()
    if generator.random() >= EARLY_FRACTION:
        while process.poll() is None and not _has_trained(home, started) and time.time() < started + GIVE_UP_S:
            time.sleep(0.01)
    try:
        process.wait(GIVE_UP_S if result.kills >= kills else generator.uniform(0, LONGEST_WAIT_S))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        result.kills += 1
    folders = list(home.glob("*/"))
    return folders[0] if folders else home


def _has_trained(home: Path, since: float) -> bool:
    return any(path.stat().st_mtime >= since for path in home.glob("*/metrics.jsonl"))


def _check_readable(folder: Path, result: Soak) -> None:
    """Reads the configuration and every checkpoint; a kill must not leave half of one."""
    steps = 0
    if (folder / "config.toml").exists():
        load_config(folder / "config.toml")
        steps = max((read_checkpoint(path).step for path in checkpoint_files(folder)), default=0)
        result.left_parts += len(list(folder.rglob(".*.part")))
    result.moments.append(steps)
