"""Downloads CIFAR-10 from the first mirror that works. Downloads are resumable and verified by checksum."""

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
from fastcifar.errors import RunFailedError, UserError, reason
from fastcifar.files import digest
from fastcifar.runtime.progress import progress

_CHUNK_BYTES = 1 << 16
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
_MAX_BYTES = 1 << 30  # of an archive of unknown size


@dataclass(frozen=True, kw_only=True, slots=True)
class MirrorLimits:
    """When to give up a mirror. Without a network, five mirrors take 30 s.

    `answer_s`: seconds from the name look-up to the response. `silence_s`: seconds without data. A mirror that sends
    fewer than `min_bytes_per_s` over `window_s` seconds is too slow, unless it is the last one.
    """

    answer_s: float = 6.0
    silence_s: float = 15.0
    min_bytes_per_s: float = 200_000.0
    window_s: float = 8.0


class DownloadError(RunFailedError):
    """No mirror served the archive. The message lists why each one failed, and the alternatives."""


class _MirrorError(Exception):
    """Why a mirror was given up."""


class _ChecksumError(_MirrorError):
    """The file is complete but its checksum is wrong."""


def download_set(
    mirrors: Sequence[tuple[str, Archive]],
    folder: Path,
    read: Callable[[Path, Archive], RawSet],
    limits: MirrorLimits | None = None,
) -> RawSet:
    """Tries the mirrors in order until an archive in `folder` has the correct checksum and `read` accepts it.

    An unfinished archive stays as `<name>.part`; the next mirror or the next call resumes it. `read` turns an archive
    into a set; if it raises UserError, the next mirror is tried. Raises DownloadError if all mirrors fail,
    RunFailedError if the disk does.
    """
    limits = limits or MirrorLimits()
    tried = []
    for index, (url, archive) in enumerate(mirrors):
        try:
            path = _fetch(url, archive, folder, limits, last=index == len(mirrors) - 1)
            return _read(path, archive, read)
        except _MirrorError as error:
            tried.append(f"{url}: {error}")
    raise DownloadError(
        f"CIFAR-10 could not be downloaded; tried {'; '.join(tried)}. Alternatives: --source PATH or "
        "FASTCIFAR_SOURCE=PATH for a local archive or folder, --url URL for a mirror of cifar-10-python.tar.gz, or "
        "--source synthetic"
    )


def _read(path: Path, archive: Archive, read: Callable[[Path, Archive], RawSet]) -> RawSet:
    try:
        return read(path, archive)
    except UserError as error:
        path.unlink()
        raise _MirrorError(str(error)) from None


def _fetch(url: str, archive: Archive, folder: Path, limits: MirrorLimits, last: bool) -> Path:
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"--url is {url!r}, expected an https:// or http:// address")
    part = folder / f"{archive.name}.part"
    if archive.size is None:
        part.unlink(missing_ok=True)  # without a checksum, nothing tells whether two parts belong together
    for resumed in (part.exists(), False):
        if not resumed:
            part.unlink(missing_ok=True)
        try:
            _transfer(url, archive, part, limits, last)
            _check(part, archive)
            break
        except _ChecksumError:
            part.unlink(missing_ok=True)
            if not resumed:
                raise
            # The part from before may be wrong, so download the whole file once.
    target = folder / archive.name
    part.replace(target)
    return target


def _check(part: Path, archive: Archive) -> None:
    if archive.md5 is not None and (found := digest(part, "md5")) != archive.md5:
        raise _ChecksumError(f"wrong checksum: MD5 {found}, expected {archive.md5}")


def _transfer(url: str, archive: Archive, part: Path, limits: MirrorLimits, last: bool) -> None:
    have = part.stat().st_size if part.exists() else 0
    if archive.size is not None and have >= archive.size:
        return  # complete; the caller verifies its checksum
    with _mirror_errors(), contextlib.closing(_open(url, have, limits)) as response:
        total = _total_size(response, have, archive)
        if response.status != http.client.PARTIAL_CONTENT:
            have = 0  # the mirror ignored the range and sends the whole file
        with _disk_errors(part), part.open("ab" if have else "wb") as file:
            left = (total - have) / 1e6 if total else 0.0
            label = f"download {archive.name} from {urllib.parse.urlsplit(url).hostname}"
            with progress(label, left, "MB") as bar:
                received = 0
                for chunk in _chunks(response, limits, last):
                    received += len(chunk)
                    if have + received > (total or _MAX_BYTES):
                        raise _MirrorError(f"sends more than {total or _MAX_BYTES} bytes")
                    file.write(chunk)
                    bar.update(received / 1e6)
    if total is not None and have + received != total:
        raise _MirrorError(f"ended after {have + received} of {total} bytes")


def _open(url: str, have: int, limits: MirrorLimits) -> Any:
    """The response, or an error after `answer_s`. A thread enforces it: name look-up and redirects have no timeout."""
    headers = {"User-Agent": "fastcifar", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(url, headers=headers)
    outcome: list[Any] = []

    def attempt() -> None:
        try:
            outcome.append(urllib.request.urlopen(request, timeout=limits.silence_s))
        except Exception as error:  # noqa: BLE001  (raised again by the waiting thread)
            outcome.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(limits.answer_s)
    if not outcome:
        raise _MirrorError(f"no answer within {limits.answer_s:.0f} s")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _total_size(response: Any, have: int, archive: Archive) -> int | None:
    """The size of the whole file, None if unknown. _MirrorError if the mirror announces another size or range."""
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


def _chunks(response: Any, limits: MirrorLimits, last: bool) -> Iterator[bytes]:
    window_start, in_window = time.monotonic(), 0
    while chunk := response.read1(_CHUNK_BYTES):
        yield chunk
        in_window += len(chunk)
        seconds = time.monotonic() - window_start
        if seconds < limits.window_s:
            continue
        if in_window < limits.min_bytes_per_s * seconds and not last:
            raise _MirrorError(f"too slow: {in_window / seconds / 1e3:.0f} kB/s over {seconds:.0f} s")
        window_start, in_window = time.monotonic(), 0


@contextlib.contextmanager
def _mirror_errors() -> Iterator[None]:
    """Turns what urllib raises into a _MirrorError of one line."""
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
        raise _MirrorError(reason(error)) from None


@contextlib.contextmanager
def _disk_errors(part: Path) -> Iterator[None]:
    """Raises RunFailedError for a full or read-only disk, which no other mirror can help."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno not in _DISK_ERRORS:  # from the network
            raise
        raise RunFailedError(f"{part} cannot be written: {error.strerror or error}") from None
