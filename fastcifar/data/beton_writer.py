"""Runs FFCV's writer in a separate process, so that a writer that fails or hangs ends in an error."""

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
from fastcifar.data.beton_format import ALLOCATION, METADATA_START, SAMPLE
from fastcifar.data.cifar10 import IMAGE_BYTES
from fastcifar.data.raw_set import RawSplit
from fastcifar.errors import RunFailedError
from fastcifar.runtime.progress import progress

PAGE_BYTES = 1 << 23  # 8 MiB, the default of FFCV's writer
STALLED_AFTER_S = 120.0  # without a byte written; includes importing torch and ffcv from a cold disk
_POLL_S = 0.05
_TERMINATE_S = 2.0  # between SIGTERM and SIGKILL


def max_beton_bytes(samples: int) -> int:
    """Upper bound of the size of a beton of raw 32x32 images, in bytes."""
    pages = -(-samples // (PAGE_BYTES // IMAGE_BYTES)) + 2
    return pages * PAGE_BYTES + METADATA_START + (SAMPLE.itemsize + ALLOCATION.itemsize) * samples


def write_betons(targets: Sequence[tuple[Path, RawSplit]], stalled_after_s: float = STALLED_AFTER_S) -> None:
    """Writes each split to its path with FFCV's DatasetWriter. Equal arrays give equal bytes.

    Does not sync the files. Raises RunFailedError if the writer or its worker dies, cannot write, or makes no progress
    for `stalled_after_s` seconds. Leaves no process running in these cases or after Ctrl-C.
    """
    with contextlib.ExitStack() as stack:
        lifeline, held = os.pipe()
        stack.callback(os.close, held)  # the child ends once all copies of this end are closed
        stack.callback(os.close, lifeline)
        errors = _memory_file(stack, "errors")
        betons = [[str(path), _shared(stack, split), len(split)] for path, split in targets]
        job = json.dumps({"lifeline": lifeline, "betons": betons})
        interrupts = stack.enter_context(_deferred_interrupts())
        child = stack.enter_context(_child(job, [lifeline, *(int(beton[1]) for beton in betons)], errors))
        _watch(child, targets, stalled_after_s, interrupts)
        if child.returncode != 0:
            _end_group(child)
            raise RunFailedError(f"FFCV's writer failed: {_reason(errors, child.returncode)}")


def _memory_file(stack: contextlib.ExitStack, name: str) -> int:
    descriptor = os.memfd_create(f"fastcifar-{name}", 0)
    stack.callback(os.close, descriptor)
    return descriptor


def _shared(stack: contextlib.ExitStack, split: RawSplit) -> int:
    """A file in memory with the labels, then the images. The child maps it instead of copying it."""
    descriptor = _memory_file(stack, "samples")
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(split.labels.astype("<i8").data)
        file.write(split.images_nhwc.data)
    return descriptor


@contextlib.contextmanager
def _deferred_interrupts() -> Iterator[list[int]]:
    """Ctrl-C in the block is added to the list, and raises KeyboardInterrupt at the end of the block.

    KeyboardInterrupt inside Popen's methods could leave a child that is never ended or a lock that is never released.
    Does nothing where Ctrl-C would not raise KeyboardInterrupt anyway: in another thread or with another handler.
    """
    received: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield received
        return
    signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if received:
            raise KeyboardInterrupt


@contextlib.contextmanager
def _child(job: str, descriptors: list[int], errors: int) -> Iterator[subprocess.Popen[bytes]]:
    root = str(Path(fastcifar.__file__).parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    # Importing FFCV compiles for 3 s, which the writer does not need.
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
        start_new_session=True,  # its own process group, which can be ended as a whole and does not receive Ctrl-C
    )
    try:
        yield child
    finally:
        if child.returncode != 0:
            _end_group(child)


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """Ends the child and its worker. SIGTERM first: Python's resource tracker ignores it and frees /dev/shm."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
        end = time.monotonic() + _TERMINATE_S
        while time.monotonic() < end:
            child.poll()
            os.killpg(child.pid, 0)
            time.sleep(_POLL_S / 5)
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _watch(
    child: subprocess.Popen[bytes],
    targets: Sequence[tuple[Path, RawSplit]],
    stalled_after_s: float,
    interrupts: list[int],
) -> None:
    """Shows progress until the child ends; raises if it stalls or at the first of `interrupts`."""
    expected_mb = sum(max_beton_bytes(len(split)) - PAGE_BYTES for _, split in targets) / 1e6
    written, changed = 0, time.monotonic()
    with progress("write betons", expected_mb, "MB") as bar:
        while child.poll() is None:
            time.sleep(_POLL_S)
            if interrupts:
                raise KeyboardInterrupt
            size = sum(path.stat().st_size for path, _ in targets if path.exists())
            if size != written:
                written, changed = size, time.monotonic()
            elif time.monotonic() - changed > stalled_after_s:
                raise RunFailedError(f"FFCV's writer has written nothing for {stalled_after_s:.0f} s; it was ended")
            bar.update(min(written / 1e6, expected_mb))
        if child.returncode == 0:
            bar.update(expected_mb)


def _reason(errors: int, code: int) -> str:
    os.lseek(errors, 0, os.SEEK_SET)
    text = os.read(errors, 1 << 20).decode("utf-8", "replace")
    if text.strip():
        return text.strip().splitlines()[-1].strip()
    return f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with exit status {code}"
