"""Finds the run to resume, checks that settings and data are the same, and locks its folder."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fastcifar.config import Config
from fastcifar.errors import UserError
from fastcifar.recipes import load_config
from fastcifar.runs.checkpoint import checkpoint_files
from fastcifar.runs.record import CONFIG_NAME, RECORD_NAME, find_run

LOCK_NAME = ".lock"
AUTO = "auto"
CHANGEABLE = {"loader", "data", "runs", "evaluation_batch_size", "checkpoint_every", "checkpoint_keep", "strict"}
"""Settings that may change on resuming: none affects the weights (of the data, the digest is compared)."""


def run_to_resume(run: str | None, config: Config) -> Path | None:
    """The folder that `--resume RUN` means for `config`; None for a new run."""
    if run != AUTO:
        return None if run is None else Path(run)
    folder = furthest_unfinished(config)
    print("resuming " + (str(folder) if folder else "nothing: a new run begins"), file=sys.stderr, flush=True)
    return folder


def unfinished(run: str, runs: Path) -> Path:
    """The folder of the run to resume, by name or path; raises UserError if it is missing, finished or not a run."""
    folder = find_run(run, runs)
    if (folder / RECORD_NAME).exists():
        raise UserError(f"{folder} is finished, there is nothing to resume; see its {RECORD_NAME}")
    if not (folder / CONFIG_NAME).exists():
        raise UserError(f"{folder} holds no {CONFIG_NAME}, so it cannot be resumed; start a new run")
    return folder


def furthest_unfinished(config: Config) -> Path | None:
    """Of the unfinished runs in `config.runs` with the same settings, the one with the most steps; None without one."""
    found: list[tuple[int, str]] = []
    for path in config.runs.glob(f"*/{CONFIG_NAME}"):
        folder = path.parent
        if (folder / RECORD_NAME).exists():
            continue
        with contextlib.suppress(UserError, SystemExit):  # a configuration of another version may not load
            if not differences(load_config(path), config):
                steps = max((int(file.stem.removeprefix("step-")) for file in checkpoint_files(folder)), default=0)
                found.append((steps, folder.name))
    return config.runs / max(found)[1] if found else None


def differences(saved: Any, wanted: Any, prefix: str = "") -> list[str]:
    """The settings of two configurations that affect the weights and differ: "epochs is 24, was 9"."""
    found: list[str] = []
    for field in fields(saved):
        old, new = getattr(saved, field.name), getattr(wanted, field.name)
        if old == new or (not prefix and field.name in CHANGEABLE):
            continue
        if is_dataclass(old) and type(old) is type(new):
            found += differences(old, new, f"{field.name}.")
        else:
            found.append(f"{prefix}{field.name} is {new}, was {old}")
    return found


def check_settings(folder: Path, wanted: Config) -> None:
    """Raises UserError, with the differences, if `wanted` would not give the weights of the run in `folder`."""
    changed = differences(load_config(folder / CONFIG_NAME), wanted)
    if changed:
        raise UserError(f"{folder} cannot be resumed with other settings: {'; '.join(changed)}; or start a new run")


def environment_changes(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs in versions, hardware and code: "versions torch 2.15.0, was 2.11.0"."""
    parts = ("versions", "hardware", "imports")
    old, new = (
        {f"{part} {key}": value for part in parts for key, value in one.get(part, {}).items()} for one in (saved, now)
    )
    for name in ("code_revision", "cpu_kernels"):
        old[name.replace("_", " ")], new[name.replace("_", " ")] = saved.get(name), now[name]
    return [f"{name} {new.get(name)}, was {value}" for name, value in old.items() if new.get(name) != value]


@contextlib.contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Holds the lock of a run folder; raises UserError if another process holds it or the folder is read-only."""
    lock = FileLock(folder / LOCK_NAME, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{folder} is being trained by another process; wait for it, or start a new run") from None
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; a run needs its folder") from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)  # safe while it is held: with timeout 0 no process waits for it
        lock.release()
