"""Fetches CIFAR-10 from the first mirror that works: resumable, checked, and quick to say that there is no network."""

import contextlib
import errno
import http.client
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastcifar.data.cifar10 import Archive
from fastcifar.data.raw_set import RawSet
from fastcifar.errors import RunFailedError, UserError
from fastcifar.files import digest
from fastcifar.runtime.progress import progress

_CHUNK_BYTES = 1 << 16
_MAX_BYTES = 1 << 30  # of an archive whose size is not known beforehand


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """When a mirror is given up. `open_s`: seconds from the name look-up to the answer, so five mirrors stay near 30 s.

    `silent_s`: seconds without a byte. `slow_bytes_per_s` over `slow_over_s` seconds: too slow, unless it is the last.
    """

    open_s: float = 6.0
    silent_s: float = 15.0
    slow_bytes_per_s: float = 200_000.0
    slow_over_s: float = 8.0


class DownloadError(RunFailedError):
    """No mirror gave the archive; the text has every mirror's reason and the ways out."""


class _MirrorError(Exception):
    """Why one mirror was given up."""


def download_set(
    mirrors: Sequence[tuple[str, Archive]],
    folder: Path,
    read: Callable[[Path, Archive], RawSet],
    patience: Patience | None = None,
) -> RawSet:
    """Downloads from the mirrors in turn into `folder`, until one archive has the right checksum and can be read.

    An unfinished archive stays as `<name>.part` and is continued by the next mirror or the next call. `read` turns the
    archive into a set; a UserError from it gives the mirror up. Raises DownloadError when all have failed,
    RunFailedError when the disk does.
    """
    patience = patience or Patience()
    tried = []
    for index, (url, archive) in enumerate(mirrors):
        try:
            path = _fetch(url, archive, folder, patience, last=index == len(mirrors) - 1)
            return _read(path, archive, read)
        except _MirrorError as error:
            tried.append(f"{url}: {error}")
    raise DownloadError(
        f"CIFAR-10 could not be downloaded; tried {'; '.join(tried)}. Ways out: --source PATH or FASTCIFAR_SOURCE=PATH "
        "with an archive or folder you have, --url URL of a mirror of cifar-10-python.tar.gz, or --source synthetic"
    )


def _read(path: Path, archive: Archive, read: Callable[[Path, Archive], RawSet]) -> RawSet:
    try:
        return read(path, archive)
    except UserError as error:
        path.unlink()
        raise _MirrorError(str(error)) from None


def _fetch(url: str, archive: Archive, folder: Path, patience: Patience, last: bool) -> Path:
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"--url is {url!r}, expected one that begins with https:// or http://")
    part = folder / f"{archive.name}.part"
    if archive.size is None:
        part.unlink(missing_ok=True)  # nothing could tell whether two halves belong together
    for resumed in (part.exists(), False):
        if not resumed:
            part.unlink(missing_ok=True)
        try:
            _transfer(url, archive, part, patience, last)
            _check(part, archive)
        except _ChecksumError as error:
            part.unlink(missing_ok=True)
            if resumed:
                continue  # the older half may be at fault: once more from the start
            raise _MirrorError(str(error)) from None
        break
    target = folder / archive.name
    part.replace(target)
    return target


class _ChecksumError(Exception):
    """A complete file that is not the archive."""


def _check(part: Path, archive: Archive) -> None:
    if archive.md5 is not None and (found := digest(part, "md5")) != archive.md5:
        raise _ChecksumError(f"wrong checksum: MD5 {found}, expected {archive.md5}")


def _transfer(url: str, archive: Archive, part: Path, patience: Patience, last: bool) -> None:
    have = part.stat().st_size if part.exists() else 0
    if archive.size is not None and have >= archive.size:
        return  # complete, and its checksum is looked at next
    with _reasons(), contextlib.closing(_open(url, have, patience)) as response:
        total = _total_size(response, have, archive)
        if response.status != http.client.PARTIAL_CONTENT:
            have = 0  # the mirror starts over, so do we
        with _disk_errors(part), part.open("ab" if have else "wb") as file:
            left = (total - have) / 1e6 if total else 0.0
            label = f"download {archive.name} from {urllib.parse.urlsplit(url).hostname}"
            with progress(label, left, "MB") as bar:
                received = 0
                for chunk in _chunks(response, patience, last):
                    received += len(chunk)
                    if have + received > (total or _MAX_BYTES):
                        raise _MirrorError(f"sends more than {total or _MAX_BYTES} bytes")
                    file.write(chunk)
                    bar.update(received / 1e6)
    if total is not None and have + received != total:
        raise _MirrorError(f"ended after {have + received} of {total} bytes")


def _open(url: str, have: int, patience: Patience) -> Any:
    """An open response, or an error within `open_s`, though neither name look-up nor redirects know a time limit."""
    headers = {"User-Agent": "fastcifar", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(url, headers=headers)
    outcome: list[Any] = []

    def attempt() -> None:
        try:
            outcome.append(urllib.request.urlopen(request, timeout=patience.silent_s))
        except Exception as error:  # noqa: BLE001  (raised again below, in the thread that waits)
            outcome.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(patience.open_s)
    if not outcome:
        raise _MirrorError(f"no answer within {patience.open_s:.0f} s")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _total_size(response: Any, have: int, archive: Archive) -> int | None:
    """The size of the whole file as the mirror tells it, or None; a mirror of another file is given up at once."""
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdigit() else None
    if response.status == http.client.PARTIAL_CONTENT:
        content_range = response.headers.get("Content-Range", "")
        start, _, size = content_range.removeprefix("bytes ").partition("/")
        if not start.startswith(f"{have}-") or not size.isdigit():
            raise _MirrorError(f"answers a request from byte {have} with {content_range!r}")
        total = int(size)
    if archive.size is not None and total is not None and total != archive.size:
        raise _MirrorError(f"serves a file of {total} bytes, expected {archive.size}")
    return archive.size if total is None else total


def _chunks(response: Any, patience: Patience, last: bool) -> Iterator[bytes]:
    window_start, in_window = time.monotonic(), 0
    while chunk := response.read1(_CHUNK_BYTES):
        yield chunk
        in_window += len(chunk)
        seconds = time.monotonic() - window_start
        if seconds < patience.slow_over_s:
            continue
        if in_window < patience.slow_bytes_per_s * seconds and not last:
            raise _MirrorError(f"too slow: {in_window / seconds / 1e3:.0f} kB/s over {seconds:.0f} s")
        window_start, in_window = time.monotonic(), 0


@contextlib.contextmanager
def _reasons() -> Iterator[None]:
    """Turns what urllib raises into one line."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        raise _MirrorError(f"HTTP {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise _MirrorError(str(error.reason)) from None
    except TimeoutError:
        raise _MirrorError("stopped sending") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _MirrorError(str(error) or type(error).__name__) from None


@contextlib.contextmanager
def _disk_errors(part: Path) -> Iterator[None]:
    """A disk that is full or read-only is not the mirror's fault: no other one is tried."""
    try:
        yield
    except OSError as error:
        if error.filename is None and not _is_disk_error(error):
            raise
        raise RunFailedError(f"{part} cannot be written: {error.strerror or error}") from None


def _is_disk_error(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
