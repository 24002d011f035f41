"""Checkpoints: everything needed to resume a run, in one safetensors file that is written atomically.

The tensors are those of the network, the optimiser and torch's random generators. The facts (step, losses, clocks,
versions) are JSON in the file's metadata, beside a SHA-256 over everything. Nothing is pickled, and a file that does
not match its digest is not used.
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
FORMAT = "fastcifar checkpoint 2"
NAME = re.compile(r"step-(\d{8,12})\.safetensors")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def _is_count(value: Any) -> bool:
    return _is_number(value) and isinstance(value, int) and value >= 0


def _is_history(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(value.get(name, "") is None or _is_number(value.get(name)) for name in ("loss", "accuracy"))
        and all(isinstance(value.get(name), list) for name in ("epoch", "recent"))
        and all(isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair)) for pair in value["epoch"])
        and all(map(_is_number, value["recent"]))
        and isinstance(value.get("judged"), bool)
    )


def _is_state(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    scaler = value.get("scaler", "")
    is_scaler = scaler is None or (isinstance(scaler, dict) and all(map(_is_number, scaler.values())))
    return is_scaler and _is_history(value.get("history"))


FACTS: dict[str, Callable[[Any], bool]] = {
    "step": _is_count,
    "state": _is_state,
    "metrics_bytes": _is_count,
    "train_accuracy": lambda value: value is None or _is_number(value),
    "train_s": _is_number,
    "run_s": _is_number,
    "resumed_at": lambda value: isinstance(value, list) and all(map(_is_count, value)),
    "dataset_sha256": lambda value: isinstance(value, str),
    "versions": lambda value: isinstance(value, dict),
    "hardware": lambda value: isinstance(value, dict),
    "imports": lambda value: isinstance(value, dict),
}
"""The facts a checkpoint must have, and the check of each."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a run after `step` steps."""

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]  # JSON


def digest_of(tensors: dict[str, Tensor], facts: str) -> str:
    """SHA-256 of the tensors and the facts (JSON)."""
    return hashlib.sha256(f"{facts}\n{weights_sha256(tensors)}".encode()).hexdigest()


def write_checkpoint(run: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Writes a checkpoint to the run folder `run` and deletes all but the newest `keep`.

    Raises OSError; earlier checkpoints are then kept.
    """
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    for part in folder.glob(".*.part"):  # left by a process that was killed during a write
        part.unlink(missing_ok=True)
    path = folder / f"step-{checkpoint.step:08d}.safetensors"
    tensors, facts = checkpoint.tensors, json.dumps({"step": checkpoint.step, **checkpoint.facts}, allow_nan=False)
    save_tensors(path, tensors, {"format": FORMAT, "facts": facts, "sha256": digest_of(tensors, facts)})
    for old in checkpoint_files(run)[keep:]:
        old.unlink(missing_ok=True)
    return path


def checkpoint_files(run: Path) -> list[Path]:
    """The run's checkpoints, newest step first."""
    found = [(int(match[1]), path) for path in (run / FOLDER).glob("*") if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint; raises UserError for a file that is damaged or not a checkpoint."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise UserError(f"cannot read the checkpoint {path}: {error}") from None
    facts = metadata.get("facts", "")
    if metadata.get("format") != FORMAT or metadata.get("sha256") != digest_of(tensors, facts):
        raise UserError(f"{path} is damaged, or not a checkpoint of this version: its SHA-256 differs")
    checked = _checked_facts(path, facts)
    return Checkpoint(checked.pop("step"), tensors, checked)


def _checked_facts(path: Path, text: str) -> dict[str, Any]:
    """The facts, parsed and checked. A matching digest does not make them valid: anyone can compute it."""
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a checkpoint: its facts are not JSON ({error})") from None
    if not isinstance(facts, dict):
        raise UserError(f"{path} is not a checkpoint: its facts are {shown(facts)}")
    for name, is_valid in FACTS.items():
        if not is_valid(facts.get(name)):
            raise UserError(f"{path} is not a checkpoint of a run: its {name} is {shown(facts.get(name))}")
    return facts


def newest_checkpoint(run: Path) -> Checkpoint | None:
    """The run's newest sound checkpoint, None if there is none; prints damaged ones to stderr."""
    for path in checkpoint_files(run):
        try:
            return read_checkpoint(path)
        except UserError as error:
            print(f"{error}; trying the previous one", file=sys.stderr, flush=True)
    return None


class CheckpointSchedule:
    """Decides after each step whether a checkpoint is due, by steps or by seconds."""

    def __init__(self, every: str) -> None:
        """`every` as `Config.checkpoint_every`."""
        self._steps, self._seconds = checkpoint_interval(every)
        self._last = time.monotonic()

    @property
    def enabled(self) -> bool:
        """Whether checkpoints are written at all."""
        return bool(self._steps or self._seconds)

    def due(self, step: int) -> bool:
        """Whether to write a checkpoint after `step` steps; if so, restarts the interval."""
        now = time.monotonic()  # not time.time, which may be set back
        if not ((self._steps and step % self._steps == 0) or (self._seconds and now - self._last >= self._seconds)):
            return False
        self._last = now
        return True


def copy_into(tensors: dict[str, Tensor], saved: dict[str, Tensor], prefix: str) -> None:
    """Copies the tensors of `saved` whose names start with `prefix` into `tensors`; UserError if they do not match."""
    found = {name.removeprefix(prefix): tensor for name, tensor in saved.items() if name.startswith(prefix)}
    saved_kinds, kinds = ({(name, t.dtype, t.shape) for name, t in some.items()} for some in (found, tensors))
    if different := sorted({name for name, _, _ in saved_kinds ^ kinds}):
        names = ", ".join(different[:3])
        raise UserError(f"the checkpoint has other tensors than the network: {names}; start a new run")
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(found[name])
