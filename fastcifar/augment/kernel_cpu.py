"""The fused kernel for CPUs: pad, crop, flip, resize, normalise, cut out and cast in one pass over an image.

An image is 3 KB, so everything between its first read and its last write stays in the L1 cache. Its bytes are first
staged inside a border, so that every crop is a plain load at another position; then one vector operation a row
(`pixel_rows.py`) flips, normalises and casts. While one image is converted, the next one is fetched into the cache:
shuffled images lie 3 KB here and there in 154 MB, which no hardware prefetcher foresees.
"""

from collections.abc import Callable
from functools import cache

import numba
import numpy as np

from fastcifar import rng as draws
from fastcifar.augment import pixel, pixel_rows
from fastcifar.augment.pixel_rows import ROW, row_store
from fastcifar.data.cifar10 import CHANNELS, IMAGE_SIZE
from fastcifar.runtime.kernel_cache import compiled, source_digest
from fastcifar.runtime.simd import function, memory, vector
from fastcifar.runtime.simd.function import prefetch
from fastcifar.runtime.simd.memory import CACHE_LINE

BORDER = 16 * CHANNELS  # the largest padding
STAGED_ROW = ROW + 2 * BORDER
BLACK_ROW = IMAGE_SIZE  # an additional staged row, which stays zero

hash64 = numba.njit(inline="always")(draws.hash64)


@numba.njit(inline="always")
def _below(hashed, shift, limit):
    """A draw in [0, limit) from 32 of the 64 hashed bits; its bias, limit / 2**32, is too small to measure."""
    return np.int64((((hashed >> shift) & np.uint64(0xFFFFFFFF)) * np.uint64(limit)) >> np.uint64(32))


@numba.njit(inline="always")
def _reflected(i):
    """Index inside the image for an index up to 31 outside of it; the border is not repeated."""
    return -i if i < 0 else (2 * (IMAGE_SIZE - 1) - i if i >= IMAGE_SIZE else i)


@numba.njit(inline="always")
def _stage(staged, image, pad, reflect):
    """Copies an image (32, 96) to the middle of `staged`; with `reflect` it also fills `pad` columns on both sides."""
    for y in range(IMAGE_SIZE):
        target, source = staged[STAGED_ROW * y + BORDER : STAGED_ROW * y + BORDER + ROW], image[y]
        for j in range(ROW):
            target[j] = source[j]
    if reflect:
        for y in range(IMAGE_SIZE):
            left, right = STAGED_ROW * y + BORDER, STAGED_ROW * y + BORDER + ROW - CHANNELS
            for j in range(CHANNELS, CHANNELS * (pad + 1), CHANNELS):
                for c in range(CHANNELS):
                    staged[left - j + c] = staged[left + j + c]
                    staged[right + j + c] = staged[right - j + c]


@numba.njit(inline="always")
def _row_start(y, shift_y, shift_x, reflect):
    """Position in `staged` of row `y` of the crop whose top left pixel is (shift_y, shift_x) of the image."""
    y += shift_y
    row = _reflected(y) if reflect else (y if 0 <= y < IMAGE_SIZE else BLACK_ROW)
    return STAGED_ROW * row + BORDER + CHANNELS * shift_x


def _image_store(cast):
    """Compiled: writes the crop of a staged image to `out` as bit patterns. Neither of its loops has a branch."""
    store, store_flipped = (row_store(cast, mirrored=flip) for flip in (False, True))

    @numba.njit(inline="always")
    def store_image(out, staged, shift_y, shift_x, flip, reflect, scale, bias):
        if flip:
            for y in range(IMAGE_SIZE):
                store_flipped(out, ROW * y, staged, _row_start(y, shift_y, shift_x, reflect), scale, bias)
        else:
            for y in range(IMAGE_SIZE):
                store(out, ROW * y, staged, _row_start(y, shift_y, shift_x, reflect), scale, bias)

    return store_image


CASTS = (lambda bits: bits, pixel.bfloat16_bits, pixel.float16_bits)
row_float32, row_bfloat16, row_float16 = (row_store(cast, mirrored=False) for cast in CASTS)
image_float32, image_bfloat16, image_float16 = (_image_store(cast) for cast in CASTS)


@numba.njit
def _store(out, staged, shift_y, shift_x, flip, reflect, scale, bias, dtype):
    """Writes the crop of a staged image to `out` as bit patterns of `dtype`."""
    if dtype == pixel.BFLOAT16:
        image_bfloat16(out, staged, shift_y, shift_x, flip, reflect, scale, bias)
    elif dtype == pixel.FLOAT16:
        image_float16(out, staged, shift_y, shift_x, flip, reflect, scale, bias)
    else:
        image_float32(out, staged, shift_y, shift_x, flip, reflect, scale, bias)


@numba.njit
def _area_weights(size):
    """The input rows (or columns) an output row averages: the first one, int64 (size,), and int32 weights (size, taps).

    In units of 1 / (32 * size) of the side an input row spans `size` and an output row 32, so the weights are integers
    that sum to 32. Near the end `first` is moved back, so that no row outside the image is read.
    """
    taps = min(IMAGE_SIZE, (IMAGE_SIZE - 1) // size + 2)
    first = np.empty(size, np.int64)
    weights = np.empty((size, taps), np.int32)
    for i in range(size):
        begin, end = IMAGE_SIZE * i, IMAGE_SIZE * (i + 1)
        first[i] = min(begin // size, IMAGE_SIZE - taps)
        for k in range(taps):
            j = first[i] + k
            weights[i, k] = max(0, min(end, size * (j + 1)) - max(begin, size * j))
    return first, weights


@numba.njit(inline="always")
def _average(small, staged, first, weights, column, shift_y, shift_x, flip, reflect, size):
    """Writes the crop at (shift_y, shift_x) to `small` as bytes, area-averaged to `size` and rounded half up."""
    for out_y in range(size):
        for j in range(ROW):
            column[j] = 0
        for k in range(weights.shape[1]):
            start = _row_start(first[out_y] + k, shift_y, shift_x, reflect)
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
            target = CHANNELS * (
                out_y * size + (size - 1 - x if flip else x)
            )  # the weights are symmetric, so flip last
            small[target] = red >> 10
            small[target + 1] = green >> 10
            small[target + 2] = blue >> 10


@numba.njit
def _crop(small, staged, shift_y, shift_x, flip, reflect, size):
    """Writes the crop of `size` pixels at (shift_y, shift_x) to `small` as bytes."""
    for y in range(size):
        start = _row_start(y, shift_y, shift_x, reflect)
        source, target = staged[start : start + CHANNELS * size], small[CHANNELS * size * y :]
        for x in range(size):
            for c in range(CHANNELS):
                target[CHANNELS * x + c] = source[CHANNELS * (size - 1 - x if flip else x) + c]


@numba.njit
def _store_small(out, small, spill, scale, bias, dtype):
    """Writes an image smaller than 32 px, 96 values at a time; the last 96 may overlap those before them."""
    length = len(out)
    target = out if length >= ROW else spill
    for k in range((max(length, ROW) + ROW - 1) // ROW):
        start = max(0, min(ROW * k, length - ROW))
        if dtype == pixel.BFLOAT16:
            row_bfloat16(target, start, small, start, scale, bias)
        elif dtype == pixel.FLOAT16:
            row_float16(target, start, small, start, scale, bias)
        else:
            row_float32(target, start, small, start, scale, bias)
    if length < ROW:
        for j in range(length):  # out[:] = ... would take seconds to compile
            out[j] = spill[j]


@numba.njit(inline="always")
def _hole(centre, cutout, size):
    """Half-open range of the `size` pixels whose centres lie in the hole; `centre` and `cutout` are in pixels of 32."""
    begin = 2 * size * (centre - cutout // 2)
    first, last = (
        (begin + IMAGE_SIZE - 1) // (2 * IMAGE_SIZE),
        (begin + 2 * size * cutout + IMAGE_SIZE - 1) // (2 * IMAGE_SIZE),
    )
    return max(0, min(size, first)), max(0, min(size, last))


@numba.njit(inline="always")
def _cut_out(out, hashed, cutout):
    """Sets a random hole of an image (size, 3 * size) to zero, which is the mean."""
    size = out.shape[0]
    top, bottom = _hole(_below(hashed, np.uint64(0), IMAGE_SIZE), cutout, size)
    left, right = _hole(_below(hashed, np.uint64(32), IMAGE_SIZE), cutout, size)
    for y in range(top, bottom):
        row = out[y, CHANNELS * left : CHANNELS * right]
        for j in range(len(row)):
            row[j] = 0


def _build(digest: str) -> Callable[..., None]:
    def augment(
        images,  # uint8 (n, 32, 96): a row's pixels and channels share an axis
        indices, sample_ids,  # int64 (b,): positions in `images`; data-set indices, which key the random draws
        crop_key, flip_key,  # uint64: the streams of the crops and cutouts, and of the flip coins
        flip, flip_parity,  # bool: whether images may be flipped; uint64: 0 or 1, added to each sample's coin
        pad, reflect,  # int: 0 to 16 pixels on each side; bool: by reflection instead of with zeros
        crop_size, cutout,  # int: `size` of `out`, or 32 for area averages; side of the hole in pixels at 32, or 0
        scale, bias,  # float32 (96,): for each pixel and channel of a row
        dtype, num_chunks,  # int: code of the output dtype (pixel.py); parts of the batch, which run in parallel
        out,  # (b, size, 3 * size): bit patterns, uint32 for float32 and uint16 for the other dtypes
    ):  # fmt: skip
        # in the closure, so part of the disk cache's key: numba does not notice edits of the functions a kernel calls
        assert digest
        count, size = out.shape[0], out.shape[1]
        first, weights = _area_weights(size)
        for chunk in numba.prange(num_chunks):
            staged = np.zeros((IMAGE_SIZE + 1) * STAGED_ROW, np.uint8)
            small = np.zeros(IMAGE_SIZE * ROW, np.uint8)
            column = np.empty(ROW, np.int32)
            spill = np.empty(ROW, out.dtype)
            end = (chunk + 1) * count // num_chunks
            for i in range(chunk * count // num_chunks, end):
                following = images[indices[min(i + 1, end - 1)]].reshape(-1)
                for j in range(0, IMAGE_SIZE * ROW, CACHE_LINE):
                    prefetch(following, j)
                sample = np.uint64(sample_ids[i])
                crop = hash64(crop_key, sample * np.uint64(2))
                shift_y = _below(crop, np.uint64(0), 2 * pad + 1 + IMAGE_SIZE - crop_size) - pad
                shift_x = _below(crop, np.uint64(32), 2 * pad + 1 + IMAGE_SIZE - crop_size) - pad
                flipped = flip and ((hash64(flip_key, sample) + flip_parity) & np.uint64(1)) == np.uint64(1)
                _stage(staged, images[indices[i]], pad, reflect)
                target = out[i].reshape(-1)
                if size == IMAGE_SIZE:
                    _store(target, staged, shift_y, shift_x, flipped, reflect, scale, bias, dtype)
                else:
                    if crop_size == size:
                        _crop(small, staged, shift_y, shift_x, flipped, reflect, size)
                    else:
                        _average(small, staged, first, weights, column, shift_y, shift_x, flipped, reflect, size)
                    _store_small(target, small, spill, scale, bias, dtype)
                if cutout:
                    _cut_out(out[i], hash64(crop_key, sample * np.uint64(2) + np.uint64(1)), cutout)

    return compiled(augment, parallel=True, nogil=True)


@cache
def kernel() -> Callable[..., None]:
    """The compiled `augment`.

    Its first call with an output width of 32 or 16 bits compiles it, or loads it from numba's disk cache.
    """
    return _build(source_digest(draws, pixel, pixel_rows, function, memory, vector))
