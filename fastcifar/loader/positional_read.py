"""Images out of a beton by `pread`, where FFCV maps the file: a file that is cut short meanwhile is an error.

A page of a map that is no longer in its file ends the process with SIGBUS. A read that comes up short can be told, and
it costs as little: one call for each image, with Python's lock released for the whole batch.
"""

import ctypes
import os
from pathlib import Path

import numba
import numpy as np

from fastcifar.data.cifar10 import IMAGE_BYTES

_pread = ctypes.CDLL(None).pread
_pread.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64)
_pread.restype = ctypes.c_ssize_t

Identity = tuple[int, int, int, int]


def identity(where: Path | int) -> Identity:
    """Device, inode, size and modification time (ns) of a file by its path or descriptor; differs: was changed."""
    status = os.stat(where)  # noqa: PTH116  (takes a descriptor as well)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@numba.njit(nogil=True)
def read_images(samples: np.ndarray, destination: np.ndarray, metadata: np.ndarray, descriptor: int) -> np.ndarray:
    """Fills `destination` (b, 32, 32, 3), uint8, with the images of `samples` (n,), n <= b; returns those n.

    `metadata` is FFCV's table of the field, whose images must be raw. OSError if the file does not give them. They
    are read straight to where they are wanted, which a copy out of a map is hardly faster than.
    """
    for i in range(len(samples)):
        start, done = np.int64(metadata[samples[i]]["data_ptr"]), 0  # numba would make a float of unsigned and signed
        target = destination.ctypes.data + i * IMAGE_BYTES
        while done < IMAGE_BYTES:
            got = _pread(descriptor, target + done, IMAGE_BYTES - done, start + done)
            if got <= 0:
                raise OSError("an image is no longer in the file, or the disk cannot be read")
            done += got
    return destination[: len(samples)]
