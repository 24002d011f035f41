"""Which run goes on, and whether it may: the same settings, the same data, nobody else at it."""

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
FREE = {"loader", "data", "runs", "evaluation_batch_size", "checkpoint_every", "checkpoint_keep"}
"""Settings that a resumed run may change: they have no influence on the weights (the data's digest is compared)."""


def run_to_resume(run: str | None, config: Config) -> Path | None:
    """The folder that `--resume RUN` means for `config`; None for a new run."""
    if run != AUTO:
        return None if run is None else Path(run)
    folder = unfinished_like(config)
    print("resuming " + (str(folder) if folder else "nothing: a new run begins"), file=sys.stderr, flush=True)
    return folder


def unfinished(run: str, runs: Path) -> Path:
    """The folder of the run to go on with, by name or path. Raises UserError for one that is not there, or finished."""
    folder = find_run(run, runs)
    if (folder / RECORD_NAME).exists():
        raise UserError(f"{folder} is finished, there is nothing to resume; see its {RECORD_NAME}")
    if not (folder / CONFIG_NAME).exists():
        raise UserError(f"{folder} holds no {CONFIG_NAME}, so it cannot be resumed; start a new run")
    return folder


def unfinished_like(config: Config) -> Path | None:
    """The unfinished run in `config.runs` with these very settings that got furthest; None without one."""
    best: tuple[int, str] | None = None
    for path in config.runs.glob(f"*/{CONFIG_NAME}"):
        folder = path.parent
        if (folder / RECORD_NAME).exists():
            continue
        with contextlib.suppress(UserError, SystemExit):  # a run of another version is none like this
            if not differences(load_config(path), config):
                steps = max((int(file.stem.removeprefix("step-")) for file in checkpoint_files(folder)[:1]), default=0)
                best = max(best or (-1, ""), (steps, folder.name))
    return None if best is None else config.runs / best[1]


def differences(saved: Config, wanted: Config) -> list[str]:
    """What differs of the settings that make the weights: "epochs is 24, was 9"."""
    return [
        f"{name} is {new}, was {old}"
        for (name, old), (_, new) in zip(_flat(saved, wanted), _flat(wanted, saved), strict=True)
        if old != new
    ]


def _flat(config: Any, other: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in fields(config):
        value, counterpart = getattr(config, field.name), getattr(other, field.name)
        if not prefix and field.name in FREE:
            continue
        if is_dataclass(value) and type(value) is type(counterpart):
            yield from _flat(value, counterpart, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value


def check_same(folder: Path, wanted: Config) -> None:
    """Raises UserError, with what changed, unless `wanted` gives the weights that the run in `folder` would have."""
    changed = differences(load_config(folder / CONFIG_NAME), wanted)
    if changed:
        raise UserError(f"{folder} cannot be resumed with other settings: {'; '.join(changed)}; or start a new run")


def check_data(folder: Path, saved: str, found: str) -> None:
    """Raises UserError unless the prepared data is what the run was begun with, by its digest."""
    if saved != found:
        raise UserError(f"{folder} was trained on other data ({saved[:12]}, now {found[:12]}): prepare that again")


def environment_changes(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What of versions, hardware and code is not as it was: "versions torch 2.15.0, was 2.11.0"."""
    old, new = ({f"{part} {key}": value for part in _PARTS for key, value in one[part].items()} for one in (saved, now))
    for name in ("code_revision", "cpu_kernels"):
        old[name.replace("_", " ")], new[name.replace("_", " ")] = saved.get(name), now[name]
    return [f"{name} {new.get(name)}, was {value}" for name, value in old.items() if new.get(name) != value]


def note_changes(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Says on stderr what changed since a checkpoint was written."""
    changed = environment_changes(saved, now)
    if changed:
        print(f"the weights may differ from an uninterrupted run's: {'; '.join(changed)}", file=sys.stderr, flush=True)


_PARTS = ("versions", "hardware")


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keeps every other training out of the run's folder, as long as this process lives."""
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
        Path(lock.lock_file).unlink(missing_ok=True)  # while it is held: nobody waits for it
        lock.release()
