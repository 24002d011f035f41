"""Atomic file writes (temporary file in the same folder, fsync, `os.replace`), bounded reads and digests."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fastcifar.errors import UserError


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yields a temporary path beside `target`, which is synced and renamed to `target` on success, else removed.

    Raises OSError from the file system and then leaves `target` as it was.
    """
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp makes it private, but data folders are shared
        sync(temporary)
        os.replace(temporary, target)  # noqa: PTH105  (named for its guarantee of atomicity)
        sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flushes a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(target: Path, text: str) -> None:
    """Writes `text` to `target` atomically, UTF-8."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically; ValueError for NaN and infinities, which JSON lacks."""
    write_text(target, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_at_most(path: Path, limit: int) -> bytes:
    """The content of a file. UserError if it has more than `limit` bytes, which are not read; OSError as usual."""
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise UserError(f"{path} is larger than {limit} bytes, the most that such a file needs")
    return content


def digest(path: Path, algorithm: str = "sha256", on_bytes: Callable[[int], None] | None = None) -> str:
    """Hexadecimal digest of a file; `on_bytes` is called with the number of bytes read so far."""
    hasher = hashlib.new(algorithm)
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            hasher.update(chunk)
            done += len(chunk)
            if on_bytes is not None:
                on_bytes(done)
    return hasher.hexdigest()
