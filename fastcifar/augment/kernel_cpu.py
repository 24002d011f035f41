"""The fused kernel for CPUs: pad, crop, flip, resize, normalise, cut out and cast in one pass over an image.

An image is 3 KB, so everything between its first read and its last write stays in the L1 cache. Its bytes are first
staged inside a border, so that every crop is a plain load at another position; then one vector operation a row
(`pixel_rows.py`) flips, normalises and casts. While one image is converted, the next one is fetched into the cache:
shuffled images lie 3 KB here and there in 154 MB, which no hardware prefetcher foresees.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numba
import numpy as np

from fastcifar import rng as draws
from fastcifar.augment import pixel, pixel_rows
from fastcifar.augment.pixel_rows import ROW, row_store
from fastcifar.data.cifar10 import CHANNELS
from fastcifar.data.cifar10 import IMAGE_SIZE as SIDE
from fastcifar.runtime.kernel_cache import compiled
from fastcifar.runtime.simd import function, memory, vector
from fastcifar.runtime.simd.function import prefetch
from fastcifar.runtime.simd.memory import CACHE_LINE

FLOAT32, BFLOAT16, FLOAT16 = 0, 1, 2
BORDER = 16 * CHANNELS  # the largest padding
STAGED_ROW = ROW + 2 * BORDER
BLACK_ROW = SIDE  # one more staged row, which stays zero

hash64 = numba.njit(inline="always")(draws.hash64)


@numba.njit(inline="always")
def _below(hashed, shift, limit):
    """A draw in [0, limit) from 32 of the 64 hashed bits; the bias, limit / 2**32, is far below anything measurable."""
    return np.int64((((hashed >> shift) & np.uint64(0xFFFFFFFF)) * np.uint64(limit)) >> np.uint64(32))


@numba.njit(inline="always")
def _mirrored(i):
    """Index inside the image for one up to 31 outside of it: reflection that does not repeat the border."""
    return -i if i < 0 else (2 * (SIDE - 1) - i if i >= SIDE else i)


@numba.njit(inline="always")
def _stage(staged, image, pad, reflect):
    """Copies an image (32, 96) into the middle of `staged`; with `reflect`, `pad` columns on both sides as well."""
    for y in range(SIDE):
        target = staged[STAGED_ROW * y + BORDER : STAGED_ROW * y + BORDER + ROW]
        source = image[y]
        for j in range(ROW):
            target[j] = source[j]
    if reflect:
        for y in range(SIDE):
            left, right = STAGED_ROW * y + BORDER, STAGED_ROW * y + BORDER + ROW - CHANNELS
            for j in range(CHANNELS, CHANNELS * (pad + 1), CHANNELS):
                for c in range(CHANNELS):
                    staged[left - j + c] = staged[left + j + c]
                    staged[right + j + c] = staged[right - j + c]


@numba.njit(inline="always")
def _staged_row(y, reflect):
    """The staged row for row `y` of the padded image, which reaches from -pad to 31 + pad."""
    return _mirrored(y) if reflect else (y if 0 <= y < SIDE else BLACK_ROW)


def _image_store(cast, mirrored):
    """Compiled: a staged image, cropped, to bit patterns in `out`; one loop each, so that it has no branch inside."""
    store = row_store(cast, mirrored=mirrored)

    @numba.njit(inline="always")
    def store_image(out, staged, shift_y, shift_x, reflect, scale, bias):
        for y in range(SIDE):
            start = STAGED_ROW * _staged_row(y + shift_y, reflect) + BORDER + CHANNELS * shift_x
            store(out, ROW * y, staged, start, scale, bias)

    return store_image


row_float32, row_bfloat16, row_float16 = (
    row_store(cast, mirrored=False) for cast in (lambda bits: bits, pixel.bfloat16_bits, pixel.float16_bits)
)
store_float32, flip_float32 = (_image_store(lambda bits: bits, flip) for flip in (False, True))
store_bfloat16, flip_bfloat16 = (_image_store(pixel.bfloat16_bits, flip) for flip in (False, True))
store_float16, flip_float16 = (_image_store(pixel.float16_bits, flip) for flip in (False, True))


@numba.njit
def _store(out, staged, shift_y, shift_x, flip, reflect, scale, bias, kind):
    """A staged image to bit patterns, by the loop for `kind` and `flip`."""
    if kind == BFLOAT16:
        if flip:
            flip_bfloat16(out, staged, shift_y, shift_x, reflect, scale, bias)
        else:
            store_bfloat16(out, staged, shift_y, shift_x, reflect, scale, bias)
    elif kind == FLOAT16:
        if flip:
            flip_float16(out, staged, shift_y, shift_x, reflect, scale, bias)
        else:
            store_float16(out, staged, shift_y, shift_x, reflect, scale, bias)
    elif flip:
        flip_float32(out, staged, shift_y, shift_x, reflect, scale, bias)
    else:
        store_float32(out, staged, shift_y, shift_x, reflect, scale, bias)


@numba.njit
def _area_weights(size):
    """Which rows (or columns) an output row averages: the first of them, int64 (size,), and weights int32 (size, taps).

    In units of 1 / (32 * size) of the side an input row spans `size` and an output row 32, so the weights are integers
    that sum to 32. Rows past the image have weight 0; the first is moved so that none is read.
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
def _average(small, staged, first, weights, column, shift_y, shift_x, flip, reflect, size):
    """The crop at (shift_y, shift_x), area-averaged and rounded half up, as bytes into `small`, row after row."""
    for out_y in range(size):
        for j in range(ROW):
            column[j] = 0
        for k in range(weights.shape[1]):
            start = STAGED_ROW * _staged_row(first[out_y] + k + shift_y, reflect) + BORDER + CHANNELS * shift_x
            weight, row = weights[out_y, k], staged[start : start + ROW]
            for j in range(ROW):
                column[j] += weight * np.int32(row[j])
        for x in range(size):
            red, green, blue = np.int32(512), np.int32(512), np.int32(512)
            for k in range(weights.shape[1]):
                weight, j = weights[x, k], CHANNELS * (first[x] + k)
                red += weight * column[j]
                green += weight * column[j + 1]
                blue += weight * column[j + 2]
            target = CHANNELS * (out_y * size + (size - 1 - x if flip else x))  # cells are symmetric, so it may wait
            small[target] = red >> 10
            small[target + 1] = green >> 10
            small[target + 2] = blue >> 10


@numba.njit
def _cut(small, staged, shift_y, shift_x, flip, reflect, size):
    """The crop of `size` pixels at (shift_y, shift_x) as bytes into `small`, row after row."""
    for y in range(size):
        start = STAGED_ROW * _staged_row(y + shift_y, reflect) + BORDER + CHANNELS * shift_x
        source, target = staged[start : start + CHANNELS * size], small[CHANNELS * size * y :]
        for x in range(size):
            for c in range(CHANNELS):
                target[CHANNELS * x + c] = source[CHANNELS * (size - 1 - x if flip else x) + c]


@numba.njit
def _store_small(out, small, spill, scale, bias, kind):
    """Stores an image smaller than 32 px, 96 values at a time; the last 96 may overlap those before them."""
    length = len(out)
    target = out if length >= ROW else spill
    for k in range((max(length, ROW) + ROW - 1) // ROW):
        start = max(0, min(ROW * k, length - ROW))
        if kind == BFLOAT16:
            row_bfloat16(target, start, small, start, scale, bias)
        elif kind == FLOAT16:
            row_float16(target, start, small, start, scale, bias)
        else:
            row_float32(target, start, small, start, scale, bias)
    if length < ROW:
        for j in range(length):  # not out[:] = ..., which takes seconds to compile
            out[j] = spill[j]


@numba.njit(inline="always")
def _hole(centre, cutout, size):
    """First and last-but-one pixel of `size` whose centres lie in the `cutout` of 32 around `centre`, clipped."""
    begin = 2 * size * (centre - cutout // 2)
    first, last = (begin + SIDE - 1) // (2 * SIDE), (begin + 2 * size * cutout + SIDE - 1) // (2 * SIDE)
    return max(0, min(size, first)), max(0, min(size, last))


@numba.njit(inline="always")
def _cut_out(out, hashed, cutout):
    """Sets the hole of an image (size, 3 * size) to zero, which is the mean."""
    size = out.shape[0]
    top, bottom = _hole(_below(hashed, np.uint64(0), SIDE), cutout, size)
    left, right = _hole(_below(hashed, np.uint64(32), SIDE), cutout, size)
    for y in range(top, bottom):
        row = out[y, CHANNELS * left : CHANNELS * right]
        for j in range(len(row)):
            row[j] = 0


def _build(source_digest: str) -> Callable[..., None]:
    def augment(
        images, rows, samples, crop_key, flip_key, flips, parity, pad, reflect, window, cutout, scale, bias, kind,
        chunks, out,
    ):  # fmt: skip
        # part of the disk cache's key, because numba does not notice edits of the functions that a kernel calls
        assert source_digest
        count, size = out.shape[0], out.shape[1]
        first, weights = _area_weights(size)
        for chunk in numba.prange(chunks):
            staged = np.zeros((SIDE + 1) * STAGED_ROW, np.uint8)
            small = np.zeros(SIDE * ROW, np.uint8)
            column = np.empty(ROW, np.int32)
            spill = np.empty(ROW, out.dtype)
            end = (chunk + 1) * count // chunks
            for i in range(chunk * count // chunks, end):
                following = images[rows[min(i + 1, end - 1)]].reshape(-1)
                for j in range(0, SIDE * ROW, CACHE_LINE):
                    prefetch(following, j)
                sample = np.uint64(samples[i])
                crop = hash64(crop_key, sample * np.uint64(2))
                shift_y = _below(crop, np.uint64(0), 2 * pad + 1 + SIDE - window) - pad
                shift_x = _below(crop, np.uint64(32), 2 * pad + 1 + SIDE - window) - pad
                flip = flips and ((hash64(flip_key, sample) + parity) & np.uint64(1)) == np.uint64(1)
                _stage(staged, images[rows[i]], pad, reflect)
                target = out[i].reshape(-1)
                if size == SIDE:
                    _store(target, staged, shift_y, shift_x, flip, reflect, scale, bias, kind)
                else:
                    if window == size:
                        _cut(small, staged, shift_y, shift_x, flip, reflect, size)
                    else:
                        _average(small, staged, first, weights, column, shift_y, shift_x, flip, reflect, size)
                    _store_small(target, small, spill, scale, bias, kind)
                if cutout:
                    _cut_out(out[i], hash64(crop_key, sample * np.uint64(2) + np.uint64(1)), cutout)

    return compiled(augment, parallel=True, nogil=True)


@cache
def kernel() -> Callable[..., None]:
    """The compiled kernel; the first call of it compiles, or loads from numba's disk cache, one output type.

    Arguments: images uint8 (n, 32, 96), a row's pixels and channels as one axis; rows and samples int64 (b,), the
    positions in `images` and the data-set indices that key the draws; crop_key and flip_key uint64; flips bool; parity
    uint64, added to each sample's coin; pad int, 0 to 16; reflect bool; window int, the crop's side: `size`, or 32
    for area averages; cutout int; scale and bias float32 (96,); kind int; chunks int, the number of threads; out (b,
    size, 3 * size), uint32 for float32 bits, uint16 for the others.
    """
    sources = (Path(module.__file__ or "") for module in (draws, pixel, pixel_rows, function, memory, vector))
    return _build(hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest())
