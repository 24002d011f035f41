"""Reads images of a beton by `pread`, where FFCV maps the file into memory.

If a mapped file is truncated, touching a page beyond its new end kills the process with SIGBUS. A short `pread` can be
reported as an error instead. It is as fast: one call per image, with the GIL released for the whole batch.
"""

import ctypes

import numba
import numpy as np

from fastcifar.data.cifar10 import IMAGE_BYTES

_pread = ctypes.CDLL(None).pread
_pread.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64)
_pread.restype = ctypes.c_ssize_t


@numba.njit(nogil=True)
def read_images(samples: np.ndarray, destination: np.ndarray, metadata: np.ndarray, descriptor: int) -> np.ndarray:
    """Fills `destination`, uint8 (b, 32, 32, 3), with the images of `samples` (n,), n <= b, and returns those n.

    `metadata` is FFCV's table of the field, whose images must be raw. Raises OSError if the file is too short or
    cannot be read.
    """
    for i in range(len(samples)):
        # int64: numba makes a float of an unsigned plus a signed integer
        start, done = np.int64(metadata[samples[i]]["data_ptr"]), 0
        target = destination.ctypes.data + i * IMAGE_BYTES
        while done < IMAGE_BYTES:
            got = _pread(descriptor, target + done, IMAGE_BYTES - done, start + done)
            if got <= 0:
                raise OSError("an image is no longer in the file, or the disk cannot be read")
            done += got
    return destination[: len(samples)]
