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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fastcifar.config import checkpoint_interval
from fastcifar.engine.record import save_tensors, weights_sha256
from fastcifar.errors import UserError

FOLDER = "checkpoints"
FORMAT = "fastcifar checkpoint 1"
NAME = re.compile(r"step-(\d{8,12})\.safetensors")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a run after `step` steps."""

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]  # JSON


def _digest(tensors: dict[str, Tensor], facts: str) -> str:
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
    save_tensors(path, tensors, {"format": FORMAT, "facts": facts, "sha256": _digest(tensors, facts)})
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
    if metadata.get("format") != FORMAT or metadata.get("sha256") != _digest(tensors, facts):
        raise UserError(f"{path} is damaged, or no checkpoint of this version: its SHA-256 differs")
    parsed = json.loads(facts)
    if not isinstance(parsed, dict) or not isinstance(parsed.get("step"), int):
        raise UserError(f"{path} is no checkpoint: it does not say how many steps it is behind")
    return Checkpoint(parsed.pop("step"), tensors, parsed)


def newest_checkpoint(run: Path) -> Checkpoint | None:
    """The run's checkpoint with the most steps that is whole; None without one. Damaged ones are named on stderr."""
    for path in checkpoint_files(run):
        try:
            return read_checkpoint(path)
        except UserError as error:
            print(f"{error}; trying the one before it", file=sys.stderr, flush=True)
    return None


class Timetable:
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
