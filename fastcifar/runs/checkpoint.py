"""Checkpoints: all that a run needs to go on, in one safetensors file each, written whole or not at all.

A file holds the network's and the optimiser's tensors and the state of torch's random generators; the rest (step,
losses, clocks, what the run was) is JSON in its metadata, with a SHA-256 over everything. Nothing is pickled, and a
file that does not match its digest is not used.
"""

import hashlib
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fastcifar.config import checkpoint_interval
from fastcifar.errors import UserError, shown
from fastcifar.runs.record import save_tensors, weights_sha256

FOLDER = "checkpoints"
FORMAT = "fastcifar checkpoint 1"
NAME = re.compile(r"step-(\d{8,12})\.safetensors")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def _count(value: Any) -> bool:
    return _number(value) and isinstance(value, int) and value >= 0


def _history(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(value.get(name, "") is None or _number(value.get(name)) for name in ("loss", "accuracy"))
        and all(isinstance(value.get(name), list) for name in ("epoch", "recent"))
        and all(isinstance(pair, list) and len(pair) == 2 and all(map(_number, pair)) for pair in value["epoch"])
        and all(map(_number, value["recent"]))
        and isinstance(value.get("judged"), bool)
    )


def _state(value: Any) -> bool:
    scaler = value.get("scaler", "") if isinstance(value, dict) else ""
    numbers = scaler is None or (isinstance(scaler, dict) and all(map(_number, scaler.values())))
    return isinstance(value, dict) and numbers and _history(value.get("history"))


FACTS: dict[str, Callable[[Any], bool]] = {
    "step": _count,
    "state": _state,
    "metrics_bytes": _count,
    "train_accuracy": lambda value: value is None or _number(value),
    "train_s": _number,
    "run_s": _number,
    "resumed_at": lambda value: isinstance(value, list) and all(map(_count, value)),
    "dataset_sha256": lambda value: isinstance(value, str),
    "versions": lambda value: isinstance(value, dict),
    "hardware": lambda value: isinstance(value, dict),
}
"""What a checkpoint must say, and how."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a run after `step` steps."""

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]  # JSON


def digest_of(tensors: dict[str, Tensor], facts: str) -> str:
    """The SHA-256 that a checkpoint of these tensors and facts (JSON) carries."""
    return hashlib.sha256(f"{facts}\n{weights_sha256(tensors)}".encode()).hexdigest()


def write_checkpoint(run: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Writes a checkpoint of the run in the folder `run` and removes all but its newest `keep`.

    Raises OSError; the ones before it are then still there.
    """
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    for part in folder.glob(".*.part"):  # of a process that was killed while it wrote
        part.unlink(missing_ok=True)
    path = folder / f"step-{checkpoint.step:08d}.safetensors"
    tensors = checkpoint.tensors
    facts = json.dumps({"step": checkpoint.step, **checkpoint.facts}, allow_nan=False)
    save_tensors(path, tensors, {"format": FORMAT, "facts": facts, "sha256": digest_of(tensors, facts)})
    for old in checkpoint_files(run)[keep:]:
        old.unlink(missing_ok=True)
    return path


def checkpoint_files(run: Path) -> list[Path]:
    """The run's checkpoints, the one with the most steps first."""
    found = [(int(match[1]), path) for path in (run / FOLDER).glob("*") if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a file; raises UserError for one that is damaged, or is none."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  (it is no dict)
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise UserError(f"cannot read the checkpoint {path}: {error}") from None
    facts = metadata.get("facts", "")
    if metadata.get("format") != FORMAT or metadata.get("sha256") != digest_of(tensors, facts):
        raise UserError(f"{path} is damaged, or no checkpoint of this version: its SHA-256 differs")
    return Checkpoint(_checked_step(path, parsed := _parsed(path, facts)), tensors, parsed)


def _parsed(path: Path, facts: str) -> dict[str, Any]:
    try:
        parsed = json.loads(facts)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no checkpoint: its facts are no JSON ({error})") from None
    if not isinstance(parsed, dict):
        raise UserError(f"{path} is no checkpoint: its facts are {shown(parsed)}")
    return parsed


def _checked_step(path: Path, facts: dict[str, Any]) -> int:
    """Takes the number of steps out of the facts; UserError for facts that somebody made up: the digest is no seal."""
    for name, good in FACTS.items():
        if not good(facts.get(name)):
            raise UserError(f"{path} is no checkpoint of a run: its {name} is {shown(facts.get(name))}")
    return facts.pop("step")


def newest_checkpoint(run: Path) -> Checkpoint | None:
    """The run's checkpoint with the most steps that is whole; None without one. Damaged ones are named on stderr."""
    for path in checkpoint_files(run):
        try:
            return read_checkpoint(path)
        except UserError as error:
            print(f"{error}; trying the one before it", file=sys.stderr, flush=True)
    return None


class CheckpointSchedule:
    """When the next checkpoint is due, by steps or by seconds."""

    def __init__(self, every: str) -> None:
        """`every` as `Config.checkpoint_every`."""
        self._steps, self._seconds = checkpoint_interval(every)
        self._last = time.monotonic()

    @property
    def ever(self) -> bool:
        """Whether there are checkpoints at all."""
        return bool(self._steps or self._seconds)

    def due(self, step: int) -> bool:
        """Whether to write one after `step` steps; then the wait begins anew."""
        now = time.monotonic()  # which no clock that is set back can stop
        if not ((self._steps and step % self._steps == 0) or (self._seconds and now - self._last >= self._seconds)):
            return False
        self._last = now
        return True


def copy_into(tensors: dict[str, Tensor], saved: dict[str, Tensor], prefix: str) -> None:
    """Copies what `saved` holds under `prefix` into `tensors`, bit for bit.

    Raises UserError where names, shapes or types differ.
    """
    found = {name.removeprefix(prefix): tensor for name, tensor in saved.items() if name.startswith(prefix)}
    if set(found) != set(tensors):
        odd = ", ".join(sorted(set(found) ^ set(tensors))[:3])
        raise UserError(f"the checkpoint does not fit this version's network or optimiser: {odd}; start a new run")
    with torch.no_grad():
        for name, tensor in tensors.items():
            if (tensor.shape, tensor.dtype) != (found[name].shape, found[name].dtype):
                raise UserError(f"the checkpoint's {name} is {found[name].dtype} {tuple(found[name].shape)}")
            tensor.copy_(found[name])
