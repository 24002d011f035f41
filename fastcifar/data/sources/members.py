"""The files inside a folder or an archive, one after the other, in memory: nothing is ever unpacked to the disk.

An archive is not trusted: names that lead outside, links, devices, and sizes only a decompression bomb has are refused.
"""

import contextlib
import gzip
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from fastcifar.errors import UserError
from fastcifar.runtime.progress import progress

MAX_MEMBER_BYTES = 64 << 20  # a batch of CIFAR-10 has 31 MB
MAX_TOTAL_BYTES = 16 << 30  # of an archive, unpacked
_TAR_HEADERS_AT_MOST = 1 << 20  # a PAX or GNU header is read in one go and never has more
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    TypeError,
    ValueError,
)
_UNREADABLE = (RuntimeError, MemoryError)  # what zipfile raises for an unknown method, and for a password


@dataclass(frozen=True, slots=True)
class Member:
    """A file (`read` gives its bytes) or a folder (`read` is None); `name` is relative to the folder or archive."""

    name: PurePosixPath
    read: Callable[[], bytes] | None


def archive_members(path: Path) -> Iterator[Member]:
    """The members of a .tar, .tar.gz, .tar.xz or .zip, told apart by content; hidden ones are left out.

    A member's `read` may be called only until the next member is asked for. Raises UserError for an archive that is
    damaged, unsafe or of no known kind.
    """
    with path.open("rb") as file, progress(f"read {path.name}", path.stat().st_size / 1e6, "MB") as bar:
        with _named(path):
            for member in _open(path, file):
                bar.update(file.tell() / 1e6)
                if not any(part.startswith((".", "__MACOSX")) for part in member.name.parts):
                    yield member
        bar.update(path.stat().st_size / 1e6)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turns whatever the unpackers raise for a damaged archive into one line that names it."""
    try:
        yield
    except UserError:
        raise
    except _BROKEN as error:
        raise UserError(f"{path} is damaged or cut short: {_one_line(error)}") from None
    except _UNREADABLE as error:
        raise UserError(f"{path} cannot be read: {_one_line(error)}") from None


def folder_members(folder: Path, depth: int) -> Iterator[Member]:
    """The files and folders down to `depth` levels, sorted, links followed, hidden ones left out."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield Member(PurePosixPath(entry.name), None)
            if depth > 1:
                for member in folder_members(Path(entry.path), depth - 1):
                    yield Member(PurePosixPath(entry.name, member.name), member.read)
        elif entry.is_file():
            yield Member(PurePosixPath(entry.name), _file_reader(Path(entry.path)))


def _file_reader(path: Path) -> Callable[[], bytes]:
    def read() -> bytes:
        with path.open("rb") as file:
            content = file.read(MAX_MEMBER_BYTES + 1)
        if len(content) > MAX_MEMBER_BYTES:
            raise UserError(f"{path} is larger than {MAX_MEMBER_BYTES >> 20} MiB, no part of a set of 32x32 images")
        return content

    return read


def is_archive(path: Path) -> bool:
    """Whether a file begins like one of the archives `archive_members` reads."""
    with path.open("rb") as file:
        return _kind(file) is not None


def _kind(file: BinaryIO) -> str | None:
    head = file.read(512)
    file.seek(0)
    for kind, magic, offset in (("gz", b"\x1f\x8b", 0), ("xz", b"\xfd7zXZ\0", 0), ("zip", b"PK", 0)):
        if head.startswith(magic, offset):
            return kind
    return "tar" if head[257:262] == b"ustar" else None


def _open(path: Path, file: BinaryIO) -> Iterator[Member]:
    kind = _kind(file)
    if kind is None:
        raise UserError(f"{path} is no archive: its content is neither .tar, .tar.gz, .tar.xz nor .zip")
    if kind == "zip":
        return _zip_members(path, file)
    unpacked: Any = file
    if kind == "gz":
        unpacked = gzip.GzipFile(fileobj=file)
    elif kind == "xz":
        unpacked = lzma.LZMAFile(file)  # noqa: SIM115  (as the one above: closing it would not close `file`)
    return _tar_members(path, unpacked)


def _safe_name(path: Path, name: str) -> PurePosixPath:
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or "\0" in name or (pure.parts and pure.parts[0].endswith(":")):
        raise UserError(f"{path}: refused member {name!r}: its name leads out of the archive")
    return pure


def _check_size(path: Path, name: str, size: int) -> None:
    if not 0 <= size <= MAX_MEMBER_BYTES:
        raise UserError(f"{path}: refused member {name!r}: {size} bytes, expected at most {MAX_MEMBER_BYTES}")


class _Bounded:
    """The unpacked stream of a tar, which ends in an error where a bomb would fill the memory or run for ever."""

    def __init__(self, path: Path, stream: Any) -> None:
        self.path, self.stream = path, stream
        self.reading_at_most = _TAR_HEADERS_AT_MOST

    def read(self, size: int) -> bytes:
        if size > self.reading_at_most:
            raise UserError(f"{self.path}: refused: a header of {size} bytes, expected at most {self.reading_at_most}")
        return self.stream.read(size)

    def seek(self, offset: int) -> int:
        if offset > MAX_TOTAL_BYTES:
            raise UserError(f"{self.path}: refused: more than {MAX_TOTAL_BYTES >> 30} GiB when unpacked")
        return self.stream.seek(offset)

    def tell(self) -> int:
        return self.stream.tell()


def _tar_members(path: Path, stream: Any) -> Iterator[Member]:
    bounded = _Bounded(path, stream)
    with tarfile.open(fileobj=cast("BinaryIO", bounded), mode="r:") as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]  (or it keeps all of them)
            name = _safe_name(path, member.name)
            if member.isdir():
                yield Member(name, None)
                continue
            if member.type not in tarfile.REGULAR_TYPES or member.issparse():
                kind = "a link" if member.issym() or member.islnk() else "not a regular file"
                raise UserError(f"{path}: refused member {member.name!r}: it is {kind}")
            _check_size(path, member.name, member.size)
            yield Member(name, _tar_reader(path, tar, member, bounded))
        bounded.seek(tar.offset)  # pyright: ignore[reportAttributeAccessIssue]
        if not bounded.read(tarfile.BLOCKSIZE):  # a whole tar ends with blocks of zeros
            raise tarfile.ReadError("it ends without the mark of its end")


def _tar_reader(path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo, bounded: _Bounded) -> Callable[[], bytes]:
    def read() -> bytes:
        bounded.reading_at_most = MAX_MEMBER_BYTES
        with _named(path):
            file = tar.extractfile(member)
            assert file is not None
            content = file.read()
            if len(content) != member.size:
                raise tarfile.ReadError(f"{member.name} ends after {len(content)} of {member.size} bytes")
        bounded.reading_at_most = _TAR_HEADERS_AT_MOST
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
        with _named(path):
            return archive.read(info)

    return read


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
