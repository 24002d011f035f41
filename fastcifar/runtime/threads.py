"""Process-wide settings of a run: thread counts, deterministic operations, the memory allocator."""

import contextlib
import ctypes
from collections.abc import Iterator

import torch

from fastcifar.runtime.device import Runtime

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
LARGEST_INT = 2**31 - 1


@contextlib.contextmanager
def apply_threads(runtime: Runtime) -> Iterator[None]:
    """Sets torch's and numba's thread counts inside the context, and restores them afterwards.

    With the Winograd kernels it also selects numba's threading layer, which is possible once per process.
    """
    import numba

    if runtime.cpu_kernels != "torch":
        # Under OpenMP numba's parallel loops run on torch's threads. Those spin for a while after each operation, so
        # the threads of another library would compete with them for the cores. No effect once a parallel loop has run.
        numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]  # type: ignore[attr-defined]
    torch_before, numba_before = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(runtime.threads)
    try:
        numba.set_num_threads(min(runtime.threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
        yield
    finally:
        torch.set_num_threads(torch_before)
        numba.set_num_threads(numba_before)


@contextlib.contextmanager
def deterministic_operations(wanted: bool, device: torch.device) -> Iterator[None]:
    """If `wanted`, a GPU operation whose bits may differ between runs raises RuntimeError inside the context."""
    if not wanted or device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextlib.contextmanager
def measured_algorithms(wanted: bool) -> Iterator[None]:
    """If `wanted`, cuDNN times its algorithms for each new shape inside the context and keeps the fastest."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = wanted
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextlib.contextmanager
def run_settings(runtime: Runtime, *, deterministic: bool) -> Iterator[None]:
    """All process-wide settings of a run: threads, the current GPU, deterministic or else the fastest operations."""
    with (
        apply_threads(runtime),
        runtime.current(),
        deterministic_operations(deterministic, runtime.device),
        measured_algorithms(runtime.device.type == "cuda" and not deterministic),
    ):
        yield


def keep_freed_memory() -> None:
    """Makes glibc's malloc keep freed memory instead of returning it to the system; no effect with another libc.

    Otherwise activations of tens of megabytes are allocated as fresh, zeroed pages in every step, which takes about 8%
    of a step on a CPU. The setting is permanent for the process, so only commands call this.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, LARGEST_INT)
