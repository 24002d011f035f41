"""Is a beton still the file its manifest describes? The size every time, the SHA-256 once per file."""

import contextlib
import json
import time
from pathlib import Path

from fastcifar.data.manifest import PREPARE_AGAIN, SplitInfo, load_manifest
from fastcifar.data.raw_set import Split
from fastcifar.errors import UserError
from fastcifar.files import digest, read_at_most, write_json
from fastcifar.runtime.progress import progress

VERIFIED_NAME = ".verified.json"
_MAX_BYTES = 1 << 20  # of that file; it has some 500
_SLOW_DISK_S = 1.0
_seen_by_this_process: dict[Path, list[object]] = {}  # resolved path -> file identity and SHA-256 that agreed


def checked_beton(folder: Path, split: Split) -> Path:
    """The path of a split's beton after checking it against the manifest: the size always, the SHA-256 once.

    Once means: per file identity (device, inode, size, modification time in ns), remembered in this process and, where
    the folder can be written, in `folder/.verified.json`. Raises UserError for a missing or changed file; the error
    says which check failed, with the value expected and the one found.
    """
    info = load_manifest(folder).splits[split]
    path = folder / info.file
    agreed = [*check_size(path, info), info.sha256]
    if _seen_by_this_process.get(path.resolve()) == agreed or _read_verified(folder).get(split) == agreed:
        return path
    check_sha256(path, info)
    remember(folder, split, info)
    return path


def check_size(path: Path, info: SplitInfo) -> tuple[int, int, int, int]:
    """The file's identity: device, inode, size, modification time in ns. UserError if missing or of another size."""
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} is missing, though its manifest names it; {PREPARE_AGAIN}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    if stat.st_size != info.bytes:
        raise UserError(f"{path} is damaged: its size is {stat.st_size} bytes, expected {info.bytes}; {PREPARE_AGAIN}")
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def check_sha256(path: Path, info: SplitInfo) -> None:
    """Reads the whole file; UserError if its SHA-256 is not the manifest's. Shows progress when the disk is slow."""
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


def remember(folder: Path, split: Split, info: SplitInfo) -> None:
    """Notes that a beton's present SHA-256 has been checked; a folder that cannot be written is no error."""
    path = folder / info.file
    agreed = [*check_size(path, info), info.sha256]
    _seen_by_this_process[path.resolve()] = agreed
    with contextlib.suppress(OSError):
        write_json(folder / VERIFIED_NAME, {**_read_verified(folder), split: agreed})


def _read_verified(folder: Path) -> dict[str, object]:
    """What earlier processes noted; nothing when the file is missing, cannot be read, or is not what we write."""
    try:
        value = json.loads(read_at_most(folder / VERIFIED_NAME, _MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
