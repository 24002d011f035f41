"""The fused kernel for CPUs: pad, crop, flip, resize, normalise, cut out and cast in one pass over a picture.

A picture is 3 KB, so everything between its first read and its last write stays in the L1 cache. Rows are first staged
as bytes, already cropped and flipped; then one branch-free loop a row turns bytes into output, which vectorises.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numba
import numpy as np

from fastcifar.augment import draws, pixel

SIDE, CHANNELS = 32, 3
ROW = SIDE * CHANNELS
FLOAT32, BFLOAT16, FLOAT16 = 0, 1, 2

hash64 = numba.njit(inline="always")(draws.hash64)
bfloat16_bits = numba.njit(inline="always")(pixel.bfloat16_bits)
float16_bits = numba.njit(inline="always")(pixel.float16_bits)


@numba.njit(inline="always")
def _below(hashed, shift, limit):
    """A draw in [0, limit) from 32 of the 64 hashed bits; the bias, limit / 2**32, is far below anything measurable."""
    return np.int64((((hashed >> shift) & np.uint64(0xFFFFFFFF)) * np.uint64(limit)) >> np.uint64(32))


@numba.njit(inline="always")
def _mirrored(i):
    """Index inside the picture for one up to 31 outside of it: reflection that does not repeat the border."""
    return -i if i < 0 else (2 * (SIDE - 1) - i if i >= SIDE else i)


@numba.njit(inline="always")
def _stage_row(tile_row, source_row, shift, flip, reflect):
    """Columns `shift` to `shift + 31` of a row of the padded picture, flipped or not, as bytes in `tile_row` (96,)."""
    first, last = max(0, -shift), min(SIDE, SIDE - shift)  # the columns that lie inside the picture
    if flip:
        for x in range(first, last):
            target, source = CHANNELS * (SIDE - 1 - x), CHANNELS * (x + shift)
            tile_row[target] = source_row[source]
            tile_row[target + 1] = source_row[source + 1]
            tile_row[target + 2] = source_row[source + 2]
    else:
        for j in range(CHANNELS * first, CHANNELS * last):
            tile_row[j] = source_row[j + CHANNELS * shift]
    for x in range(SIDE - (last - first)):
        x = x if x < first else x + last - first
        target = CHANNELS * (SIDE - 1 - x if flip else x)
        for c in range(CHANNELS):
            tile_row[target + c] = source_row[CHANNELS * _mirrored(x + shift) + c] if reflect else 0


@numba.njit
def _area_weights(size):
    """Which rows (or columns) an output row averages: the first of them, int64 (size,), and weights int32 (size, taps).

    In units of 1 / (32 * size) of the side an input row spans `size` and an output row 32, so the weights are integers
    that sum to 32. Rows past the picture have weight 0; the first is moved so that none is read.
    """
    taps = min(SIDE, (SIDE - 1) // size + 2)
    first = np.empty(size, np.int64)
    weights = np.empty((size, taps), np.int32)
    for i in range(size):
        begin, end = SIDE * i, SIDE * (i + 1)
        first[i] = min(begin // size, SIDE - taps)
        for k in range(taps):
            j = first[i] + k
            weights[i, k] = max(0, min(end, size * (j + 1)) - max(begin, size * j))
    return first, weights


@numba.njit(inline="always")
def _average_row(small_row, tile, out_y, first, weights, column, size):
    """Row `out_y` of the area-averaged picture, rounded half up, as bytes into `small_row`."""
    column[:] = 0
    for k in range(weights.shape[1]):
        weight, row = weights[out_y, k], tile[first[out_y] + k]
        for j in range(ROW):
            column[j] += weight * np.int32(row[j])
    for x in range(size):
        red, green, blue = np.int32(512), np.int32(512), np.int32(512)
        for k in range(weights.shape[1]):
            weight, j = weights[x, k], CHANNELS * (first[x] + k)
            red += weight * column[j]
            green += weight * column[j + 1]
            blue += weight * column[j + 2]
        small_row[CHANNELS * x] = red >> 10
        small_row[CHANNELS * x + 1] = green >> 10
        small_row[CHANNELS * x + 2] = blue >> 10


@numba.njit(inline="always")
def _store_row(out_row, row, scale, bias, values, kind):
    """Normalises staged bytes and stores their bit patterns; the branch on `kind` is outside the loops."""
    length = len(out_row)
    for j in range(length):
        values[j] = np.float32(row[j]) * scale[j] + bias[j]
    bits = values.view(np.uint32)
    if kind == BFLOAT16:
        for j in range(length):
            out_row[j] = bfloat16_bits(bits[j])
    elif kind == FLOAT16:
        for j in range(length):
            out_row[j] = float16_bits(bits[j])
    else:
        for j in range(length):
            out_row[j] = bits[j]


def _build(source_digest: str) -> Callable[..., None]:
    def augment(
        images, rows, samples, crop_key, flip_key, flips, parity, pad, reflect, cutout, scale, bias, kind, chunks, out
    ):
        # part of the disk cache's key, because numba does not notice edits of the functions that a kernel calls
        assert source_digest
        count, size = out.shape[0], out.shape[1]
        length = out.shape[2]
        first, weights = _area_weights(size)
        for chunk in numba.prange(chunks):
            tile = np.empty((SIDE, ROW), np.uint8)
            small = np.empty(ROW, np.uint8)
            column = np.empty(ROW, np.int32)
            values = np.empty(ROW, np.float32)
            for i in range(chunk * count // chunks, (chunk + 1) * count // chunks):
                sample = np.uint64(samples[i])
                crop = hash64(crop_key, sample * np.uint64(2))
                shift_y = _below(crop, np.uint64(0), 2 * pad + 1) - pad
                shift_x = _below(crop, np.uint64(32), 2 * pad + 1) - pad
                flip = flips and ((hash64(flip_key, sample) + parity) & np.uint64(1)) == np.uint64(1)
                for y in range(SIDE):
                    source = y + shift_y
                    if reflect or 0 <= source < SIDE:
                        _stage_row(tile[y], images[rows[i], _mirrored(source)], shift_x, flip, reflect)
                    else:
                        tile[y] = 0
                hole = hash64(crop_key, sample * np.uint64(2) + np.uint64(1))
                top = _below(hole, np.uint64(0), SIDE) - cutout // 2
                left = _below(hole, np.uint64(32), SIDE) - cutout // 2
                for y in range(size):
                    row = tile[y]
                    if size != SIDE:
                        _average_row(small, tile, y, first, weights, column, size)
                        row = small
                    _store_row(out[i, y], row, scale, bias, values, kind)
                    # a pixel is cut out where its centre, (2 y + 1) * 32 / (2 size), lies in the hole
                    if 2 * size * top <= (2 * y + 1) * SIDE < 2 * size * (top + cutout):
                        for j in range(length):
                            if 2 * size * left <= (2 * (j // CHANNELS) + 1) * SIDE < 2 * size * (left + cutout):
                                out[i, y, j] = 0

    try:
        return numba.njit(parallel=True, nogil=True, cache=True)(augment)
    except RuntimeError:  # no folder to cache in can be written; compiling costs a few seconds in every process
        return numba.njit(parallel=True, nogil=True)(augment)


@cache
def kernel() -> Callable[..., None]:
    """The compiled kernel; the first call of it compiles, or loads from numba's disk cache, one output type.

    Arguments: images uint8 (n, 32, 96), a row's pixels and channels as one axis; rows and samples int64 (b,), the
    positions in `images` and the data-set indices that key the draws; crop_key and flip_key uint64; flips bool; parity
    uint64, added to each sample's coin; pad int; reflect bool; cutout int; scale and bias float32 (96,); kind int;
    chunks int, the number of threads; out (b, size, 3 * size), uint32 for float32 bits and uint16 for 16-bit types.
    """
    sources = (Path(module.__file__ or "") for module in (draws, pixel))
    return _build(hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest())
