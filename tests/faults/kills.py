"""Trainings that are killed again and again, at random moments, and go on until they are done."""

import json
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from fastcifar.recipes import load_config
from fastcifar.runs.checkpoint import checkpoint_files, read_checkpoint

FROM_THE_START = 0.2  # fraction of the kills that may come while Python still imports
LONGEST_WAIT_S = 1.5  # behind the first sign of training
GIVE_UP_S = 120


@dataclass
class Soak:
    """What a number of kills came to."""

    kills: int = 0
    runs: int = 0
    moments: list[int] = field(default_factory=list)  # steps of the newest checkpoint after each kill, 0 without one
    left_parts: int = 0  # temporary files of a write that a kill cut off
    different: list[str] = field(default_factory=list)  # hashes of weights that are not those of the whole run


def arguments(data: Path, epochs: int) -> list[str]:
    """Some seconds of training that writes a checkpoint after every step, so that many a kill hits a write."""
    start = ["--recipe", "smoke", "--data", data, "--batch-size", 50, "--threads", 1, "--checkpoint-every", 1]
    return [str(item) for item in [*start, "--model.widths", 16, 32, "--amp", "float32", "--epochs", epochs]]


def train(arguments: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "fastcifar", "train", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def weights_of(folder: Path) -> str:
    return json.loads((folder / "record.json").read_text())["weights_sha256"]


def soak(arguments: list[str], runs: Path, *, kills: int, seed: int) -> Soak:
    """Trains `arguments` once whole, then with `kills` kills, beginning a new run whenever one reaches its end."""
    draw = random.Random(seed)
    assert train([*arguments, "--runs", str(runs / "whole")]).wait(GIVE_UP_S) == 0
    expected = weights_of(next((runs / "whole").iterdir()))
    result, folder = Soak(), runs
    while result.kills < kills or not is_done(folder):
        if is_done(folder) or not (folder / "config.toml").exists():
            result.runs += 1
            home = runs / f"run-{result.runs}"
            folder = _killed(train([*arguments, "--runs", str(home)]), home, draw, result, kills)
        else:
            _killed(train(["--resume", str(folder)]), folder.parent, draw, result, kills)
        _check_readable(folder, result)
        if is_done(folder) and weights_of(folder) != expected:
            result.different.append(weights_of(folder))
    return result


def is_done(folder: Path) -> bool:
    return (folder / "record.json").exists()


def _killed(process: subprocess.Popen[bytes], home: Path, draw: random.Random, result: Soak, kills: int) -> Path:
    """Kills the process at a random moment, if it is not done before and not enough were; returns the run's folder."""
    started = time.monotonic()
    if draw.random() >= FROM_THE_START:
        while process.poll() is None and not _trained_since(home, started) and time.monotonic() < started + GIVE_UP_S:
            time.sleep(0.01)
    try:
        process.wait(GIVE_UP_S if result.kills >= kills else draw.uniform(0, LONGEST_WAIT_S))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        result.kills += 1
    folders = list(home.glob("*/"))
    return folders[0] if folders else home


def _trained_since(home: Path, started: float) -> bool:
    begun = time.time() - (time.monotonic() - started)
    return any(path.stat().st_mtime >= begun for path in home.glob("*/metrics.jsonl"))


def _check_readable(folder: Path, result: Soak) -> None:
    """Whatever a kill leaves must be readable: no checkpoint and no setting may be half-written."""
    steps = 0
    if (folder / "config.toml").exists():
        load_config(folder / "config.toml")
        steps = max((read_checkpoint(path).step for path in checkpoint_files(folder)), default=0)
        result.left_parts += len(list(folder.rglob(".*.part")))
    result.moments.append(steps)
