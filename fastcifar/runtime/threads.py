"""Process-wide settings of a run: thread counts, deterministic operations, the allocator; restored afterwards."""

import contextlib
import ctypes
import os
from collections.abc import Iterator

import torch

from fastcifar.runtime.device import Runtime

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
LARGEST_INT = 2**31 - 1


@contextlib.contextmanager
def apply_threads(runtime: Runtime) -> Iterator[None]:
    """Torch's and numba's thread counts as `runtime` says inside, and as they were before outside.

    With kernels of ours numba's threading layer is chosen as well, which it allows once in a process.
    """
    import numba

    if runtime.cpu_kernels != "torch":
        # numba's parallel loops by OpenMP, if none has run yet: torch's threads, which keep turning for a while after
        # each operation, then do them; threads of another library would have to share the cores with those
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
    """Inside, operations on a GPU whose bits may differ from one time to the next are refused, if `wanted`."""
    if not wanted or device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it first gets work
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def keep_freed_memory() -> None:
    """Tells glibc's malloc to re-use freed memory instead of giving it back to the system; nothing elsewhere.

    Activations of tens of megabytes otherwise come from fresh, zeroed pages at every step: about 8% of a step on CPU.
    For the whole process and for good, so only the commands call it.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, LARGEST_INT)
