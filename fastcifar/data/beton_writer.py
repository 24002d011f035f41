"""Runs FFCV's writer in a process of its own and sees to it that it ends: well, or with an error, never in a hang."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import fastcifar
from fastcifar.data.raw_set import RawSplit
from fastcifar.errors import RunFailedError
from fastcifar.runtime.progress import progress

PAGE_BYTES = 1 << 23  # what FFCV's writer uses: 8 MiB
STALLED_AFTER_S = 120.0  # without a byte written; importing torch and ffcv from a cold disk counts
_POLL_S = 0.05
_GROUP_END_S = 2.0


def beton_bytes_at_most(samples: int) -> int:
    """An upper bound of the size of a beton of 32x32 raw images, in bytes, to ask the disk for beforehand."""
    per_page = PAGE_BYTES // 3072
    return (-(-samples // per_page) + 1) * PAGE_BYTES + 2106 + 48 * samples + PAGE_BYTES


def write_betons(targets: Sequence[tuple[Path, RawSplit]], stalled_after_s: float = STALLED_AFTER_S) -> None:
    """Writes each split to its path with FFCV's DatasetWriter: same arrays, same bytes.

    The files are in place but not synced. Raises RunFailedError when the writer or its worker dies, cannot write, or
    makes no progress for `stalled_after_s` seconds; nothing it started is left running then, nor after Ctrl-C.
    """
    with contextlib.ExitStack() as stack:
        lifeline, held = os.pipe()
        stack.callback(os.close, held)  # the child ends when the last holder of this end is gone
        stack.callback(os.close, lifeline)
        errors = _memory_file(stack, "errors")
        betons = [[str(path), _shared(stack, split), len(split)] for path, split in targets]
        job = json.dumps({"lifeline": lifeline, "betons": betons})
        interrupts = stack.enter_context(_noted_interrupts())
        with _child(job, [lifeline, *(int(beton[1]) for beton in betons)], errors) as child:
            _watch(child, [path for path, _ in targets], _expected_bytes(targets), stalled_after_s, errors, interrupts)


def _memory_file(stack: contextlib.ExitStack, name: str) -> int:
    descriptor = os.memfd_create(f"fastcifar-{name}", 0)
    stack.callback(os.close, descriptor)
    return descriptor


def _shared(stack: contextlib.ExitStack, split: RawSplit) -> int:
    """A file in memory with the labels, then the images; the child maps it, so they are not held twice."""
    descriptor = _memory_file(stack, "samples")
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(split.labels.astype("<i8").data)
        file.write(split.images_nhwc.data)
    return descriptor


def _expected_bytes(targets: Sequence[tuple[Path, RawSplit]]) -> int:
    return sum(beton_bytes_at_most(len(split)) - PAGE_BYTES for _, split in targets)


@contextlib.contextmanager
def _noted_interrupts() -> Iterator[list[int]]:
    """Ctrl-C adds to the list instead of raising, and raises at the end of the block at the latest.

    KeyboardInterrupt inside of Popen's methods would leave a child that nobody knows of, or a lock that nobody gives
    back. Where Ctrl-C would not raise KeyboardInterrupt here (a thread, another handler) nothing is changed.
    """
    noted: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield noted
        return
    signal.signal(signal.SIGINT, lambda number, _: noted.append(number))
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if noted:
            raise KeyboardInterrupt


@contextlib.contextmanager
def _child(job: str, descriptors: list[int], errors: int) -> Iterator[subprocess.Popen[bytes]]:
    root = str(Path(fastcifar.__file__).parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    # The writer compiles nothing, but importing it does, for 3 s, unless numba is told not to.
    switches = {"NUMBA_DISABLE_JIT": "1", "TQDM_DISABLE": "1"}
    environment = {**os.environ, **switches, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-W", "ignore", "-m", "fastcifar.data.beton_worker", job]
    child = subprocess.Popen(
        command,
        env=environment,
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        start_new_session=True,  # a process group we can end as a whole; and Ctrl-C reaches only us
    )
    try:
        yield child
    finally:
        if child.returncode != 0:
            _end_group(child)


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """Ends the child and its worker. SIGTERM first: Python's resource tracker survives it and frees /dev/shm."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
        end = time.monotonic() + _GROUP_END_S
        while time.monotonic() < end:
            child.poll()
            os.killpg(child.pid, 0)
            time.sleep(_POLL_S / 5)
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _watch(
    child: subprocess.Popen[bytes],
    paths: list[Path],
    expected: int,
    stalled_after_s: float,
    errors: int,
    interrupts: list[int],
) -> None:
    written, changed = 0, time.monotonic()
    with progress("write betons", expected / 1e6, "MB") as bar:
        while child.poll() is None:
            time.sleep(_POLL_S)
            if interrupts:
                raise KeyboardInterrupt
            size = sum(path.stat().st_size for path in paths if path.exists())
            if size != written:
                written, changed = size, time.monotonic()
            elif time.monotonic() - changed > stalled_after_s:
                raise RunFailedError(f"FFCV's writer has written nothing for {stalled_after_s:.0f} s; it was ended")
            bar.update(min(written / 1e6, expected / 1e6))
        if child.returncode == 0:
            bar.update(expected / 1e6)
    if child.returncode != 0:
        _end_group(child)
        raise RunFailedError(f"FFCV's writer failed: {_reason(errors, child.returncode)}")


def _reason(errors: int, code: int) -> str:
    os.lseek(errors, 0, os.SEEK_SET)
    text = os.read(errors, 1 << 20).decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines:
        return lines[-1]
    return f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with exit status {code}"
