"""Iterates over the files in a folder or an archive. They are read into memory; nothing is unpacked to disk.

Archives are not trusted. Refused are names that lead out of the archive, links, devices and the sizes of
decompression bombs.
"""

import contextlib
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from fastcifar.errors import MALFORMED, UserError, reason
from fastcifar.files import read_at_most
from fastcifar.runtime.progress import progress

MAX_MEMBER_BYTES = 64 << 20  # a batch of CIFAR-10 has 31 MB
MAX_TOTAL_BYTES = 16 << 30  # of an archive, unpacked
_MAX_TAR_HEADER = 1 << 20  # bytes; tarfile reads a PAX or GNU header in one call
_MALFORMED = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, *MALFORMED)


@dataclass(frozen=True, slots=True)
class Member:
    """A file (`read` gives its bytes) or a folder (`read` is None); `name` is relative to the folder or archive."""

    name: PurePosixPath
    read: Callable[[], bytes] | None


def archive_members(path: Path) -> Iterator[Member]:
    """The members of a .tar, .tar.gz, .tar.xz or .zip, whose format is detected by content; hidden ones are skipped.

    Call a member's `read` before advancing to the next member. Raises UserError for an archive that is damaged, unsafe
    or of an unknown format.
    """
    with path.open("rb") as file, progress(f"read {path.name}", path.stat().st_size / 1e6, "MB") as bar:
        with _reading(path):
            for member in _open(path, file):
                bar.update(file.tell() / 1e6)
                if not any(part.startswith((".", "__MACOSX")) for part in member.name.parts):
                    yield member
        bar.update(path.stat().st_size / 1e6)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns whatever the unpackers raise for a malformed archive into a UserError of one line that names it."""
    try:
        yield
    except UserError:
        raise
    except _MALFORMED as error:
        raise UserError(f"{path} cannot be read, it may be damaged or cut short: {reason(error)}") from None


def folder_members(folder: Path, depth: int) -> Iterator[Member]:
    """The files and folders down to `depth` levels, sorted by name; links are followed, hidden ones skipped."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield Member(PurePosixPath(entry.name), None)
            if depth > 1:
                for member in folder_members(Path(entry.path), depth - 1):
                    yield Member(PurePosixPath(entry.name, member.name), member.read)
        elif entry.is_file():
            yield Member(PurePosixPath(entry.name), partial(read_at_most, Path(entry.path), MAX_MEMBER_BYTES))


def is_archive(path: Path) -> bool:
    """Whether a file begins like an archive that `archive_members` reads."""
    with path.open("rb") as file:
        return _kind(file) is not None


def _kind(file: BinaryIO) -> str | None:
    head = file.read(512)
    file.seek(0)
    for kind, magic in (("gz", b"\x1f\x8b"), ("xz", b"\xfd7zXZ\0"), ("zip", b"PK")):
        if head.startswith(magic):
            return kind
    return "tar" if head[257:262] == b"ustar" else None


def _open(path: Path, file: BinaryIO) -> Iterator[Member]:
    kind = _kind(file)
    if kind is None:
        raise UserError(f"{path} is not an archive: its content is neither .tar, .tar.gz, .tar.xz nor .zip")
    if kind == "zip":
        return _zip_members(path, file)
    unpacked: Any = file
    if kind == "gz":
        unpacked = gzip.GzipFile(fileobj=file)
    elif kind == "xz":
        unpacked = lzma.LZMAFile(file)  # noqa: SIM115  (closing it would not close `file`)
    return _tar_members(path, unpacked)


def _safe_name(path: Path, name: str) -> PurePosixPath:
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or "\0" in name or (pure.parts and pure.parts[0].endswith(":")):
        raise UserError(f"{path}: refused member {name!r}: its name leads out of the archive")
    return pure


def _check_size(path: Path, name: str, size: int) -> None:
    if not 0 <= size <= MAX_MEMBER_BYTES:
        raise UserError(f"{path}: refused member {name!r}: {size} bytes, expected at most {MAX_MEMBER_BYTES}")


class _LimitedStream:
    """The unpacked stream of a tar. Raises UserError instead of unpacking a bomb into memory or without end."""

    def __init__(self, path: Path, stream: Any) -> None:
        self.path, self.stream = path, stream
        self.max_read = _MAX_TAR_HEADER

    def read(self, size: int) -> bytes:
        if size > self.max_read:
            raise UserError(f"{self.path}: refused: a header of {size} bytes, expected at most {self.max_read}")
        return self.stream.read(size)

    def seek(self, offset: int) -> int:
        if offset > MAX_TOTAL_BYTES:
            raise UserError(f"{self.path}: refused: more than {MAX_TOTAL_BYTES >> 30} GiB when unpacked")
        return self.stream.seek(offset)

    def tell(self) -> int:
        return self.stream.tell()


def _tar_members(path: Path, stream: Any) -> Iterator[Member]:
    limited = _LimitedStream(path, stream)
    with tarfile.open(fileobj=cast("BinaryIO", limited), mode="r:") as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]  (it would keep all of them)
            name = _safe_name(path, member.name)
            if member.isdir():
                yield Member(name, None)
                continue
            if member.type not in tarfile.REGULAR_TYPES or member.issparse():
                kind = "a link" if member.issym() or member.islnk() else "not a regular file"
                raise UserError(f"{path}: refused member {member.name!r}: it is {kind}")
            _check_size(path, member.name, member.size)
            yield Member(name, _tar_reader(path, tar, member, limited))
        limited.seek(tar.offset)  # pyright: ignore[reportAttributeAccessIssue]
        if not limited.read(tarfile.BLOCKSIZE):  # a complete tar ends with blocks of zeros
            raise tarfile.ReadError("the end-of-archive blocks are missing")


def _tar_reader(
    path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo, limited: _LimitedStream
) -> Callable[[], bytes]:
    def read() -> bytes:
        limited.max_read = MAX_MEMBER_BYTES
        with _reading(path):
            file = tar.extractfile(member)
            assert file is not None
            content = file.read()
            if len(content) != member.size:
                raise tarfile.ReadError(f"{member.name} ends after {len(content)} of {member.size} bytes")
        limited.max_read = _MAX_TAR_HEADER
        return content

    return read


def _zip_members(path: Path, file: BinaryIO) -> Iterator[Member]:
    with zipfile.ZipFile(file) as archive:
        total = 0
        for info in archive.infolist():
            name = _safe_name(path, info.filename)
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                kind = "a link" if stat.S_ISLNK(mode) else "not a regular file"
                raise UserError(f"{path}: refused member {info.filename!r}: it is {kind}")
            if info.is_dir():
                yield Member(name, None)
                continue
            _check_size(path, info.filename, info.file_size)
            total += info.file_size
            if total > MAX_TOTAL_BYTES:
                raise UserError(f"{path}: refused: more than {MAX_TOTAL_BYTES >> 30} GiB when unpacked")
            yield Member(name, _zip_reader(path, archive, info))


def _zip_reader(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        with _reading(path):
            return archive.read(info)

    return read
