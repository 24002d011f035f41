"""Checks that a beton is still the file its manifest describes: the size every time, the SHA-256 once per file."""

import contextlib
import json
import os
import time
from pathlib import Path

from fastcifar.data.manifest import PREPARE_AGAIN, SplitInfo, load_manifest
from fastcifar.data.raw_set import Split
from fastcifar.errors import UserError
from fastcifar.files import digest, read_at_most, write_json
from fastcifar.runtime.progress import progress

VERIFIED_NAME = ".verified.json"
_MAX_BYTES = 1 << 20  # of that file, which has some 500
_SLOW_DISK_S = 1.0
_verified_here: dict[Path, list[object]] = {}  # what `mark_verified` stored in this process, by resolved path

FileIdentity = tuple[int, int, int, int]


def file_identity(file: Path | int) -> FileIdentity:
    """Device, inode, size and modification time (ns) of a file, given by path or descriptor."""
    status = os.stat(file)  # noqa: PTH116  (takes descriptors too)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def checked_beton(folder: Path, split: Split) -> Path:
    """The path of a split's beton, after checking its size and, once per file identity, its SHA-256.

    A SHA-256 that agreed is remembered in this process and, where the folder is writable, in `folder/.verified.json`.
    Raises UserError for a missing or changed file, with the value that was expected and the one that was found.
    """
    info = load_manifest(folder).splits[split]
    path = folder / info.file
    verified = [*check_size(path, info), info.sha256]
    if _verified_here.get(path.resolve()) != verified and _read_verified(folder).get(split) != verified:
        check_sha256(path, info)
        mark_verified(folder, split, info)
    return path


def check_size(path: Path, info: SplitInfo) -> FileIdentity:
    """The file's identity. Raises UserError if it is missing or of another size than the manifest says."""
    try:
        identity = file_identity(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} is missing, though its manifest names it; {PREPARE_AGAIN}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    size = identity[2]
    if size != info.bytes:
        raise UserError(f"{path} is damaged: its size is {size} bytes, expected {info.bytes}; {PREPARE_AGAIN}")
    return identity


def check_sha256(path: Path, info: SplitInfo) -> None:
    """Raises UserError if the SHA-256 of the file is not the manifest's. Shows progress if the disk is slow."""
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        bar = None

        def on_bytes(done: int) -> None:
            nonlocal bar
            if bar is None and time.monotonic() - started > _SLOW_DISK_S:
                bar = stack.enter_context(progress(f"check {path.name}", info.bytes / 1e6, "MB"))
            if bar is not None:
                bar.update(done / 1e6)

        try:
            found = digest(path, on_bytes=on_bytes)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror})") from None
    if found != info.sha256:
        raise UserError(
            f"{path} is damaged or from another run: its SHA-256 is {found}, expected {info.sha256}; {PREPARE_AGAIN}"
        )


def mark_verified(folder: Path, split: Split, info: SplitInfo) -> None:
    """Records that the SHA-256 of the file as it is now agrees; skips `.verified.json` in a read-only folder."""
    path = folder / info.file
    verified = [*check_size(path, info), info.sha256]
    _verified_here[path.resolve()] = verified
    with contextlib.suppress(OSError):
        write_json(folder / VERIFIED_NAME, {**_read_verified(folder), split: verified})


def _read_verified(folder: Path) -> dict[str, object]:
    """The content of `.verified.json`; empty if it is missing, unreadable or not a JSON object."""
    try:
        value = json.loads(read_at_most(folder / VERIFIED_NAME, _MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
