"""Memory for batches, used again once nobody holds the batch that was in it.

A batch is megabytes, and the system zeroes such memory page by page whenever it is asked for it anew: up to four times
the work of filling it. PyTorch's tensor over a NumPy array holds a reference to the array for as long as the tensor or
a view of it lives, so the array's reference count tells when its memory is free.
"""

import sys
import threading

import numpy as np

ALIGNMENT = 64  # bytes: a cache line, and the widest vector
KEPT = 4
"""Buffers kept at most: a batch in use, one saved for its backward pass, one being made, and one to spare."""
UNUSED = 3  # references to a buffer nobody uses: the list's, the loop's, and getrefcount's own


class BufferPool:
    """Hands out buffers; what it handed out is its own again when the last reference to it is gone. Thread-safe."""

    def __init__(self) -> None:
        self._buffers: list[np.ndarray] = []
        self._lock = threading.Lock()

    def take(self, size: int) -> np.ndarray:
        """Uninitialised uint8 (size,), aligned to 64 bytes; keep a reference to this very array while it is in use."""
        with self._lock:
            for buffer in self._buffers:
                if len(buffer) == size and sys.getrefcount(buffer) == UNUSED:
                    return buffer
            raw = np.empty(size + ALIGNMENT, np.uint8)
            start = -raw.ctypes.data % ALIGNMENT
            buffer = raw[start : start + size]
            self._buffers = [*self._buffers, buffer][-KEPT:]
            return buffer
