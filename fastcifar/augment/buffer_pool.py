"""Buffers for batches, reused once nothing refers to the batch in them.

A batch takes megabytes, and the system zeroes a fresh allocation of that size page by page: up to four times the work
of filling it. A PyTorch tensor over a NumPy array keeps a reference to the array for as long as the tensor or a view of
it exists, so the array's reference count tells whether its memory is free.
"""

import sys
import threading

import numpy as np

ALIGNMENT = 64  # bytes: a cache line, and the widest vector
MAX_BUFFERS = 4  # one in use, one saved for the backward pass, one being filled, one spare
UNUSED_REFERENCES = 3  # to a free buffer: from the list, from the loop, and from getrefcount


class BufferPool:
    """Allocates buffers, and reuses each one when the last reference to it is gone. Thread-safe."""

    def __init__(self) -> None:
        self._buffers: list[np.ndarray] = []
        self._lock = threading.Lock()

    def take(self, size: int) -> np.ndarray:
        """Uninitialised uint8 (size,), aligned to 64 bytes. Keep a reference to this very array while it is in use."""
        with self._lock:
            for buffer in self._buffers:
                if len(buffer) == size and sys.getrefcount(buffer) == UNUSED_REFERENCES:
                    return buffer
            raw = np.empty(size + ALIGNMENT, np.uint8)
            start = -raw.ctypes.data % ALIGNMENT
            buffer = raw[start : start + size]
            self._buffers = [*self._buffers, buffer][-MAX_BUFFERS:]
            return buffer
