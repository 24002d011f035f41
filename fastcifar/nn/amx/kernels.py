"""3x3 convolutions on a CPU with AMX, with optional max-pooling, as sums of products of bfloat16 matrices.

A thread takes a few images at a time and lays them out as one sequence of pixels (`staging`), in which every tap of the
filter is a matrix product of moved pixels. All products that a block of 32 pixels by 32 channels needs are summed in
tile registers, in float32. The number of threads alone decides which thread computes what, so the same number of
threads gives the same bits.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numba
import numpy as np

from fastcifar.nn.amx import staging, tiles
from fastcifar.nn.amx.staging import (
    ROW,
    interleave_all,
    pack,
    pack_rotated,
    stage,
    stage_unpooled,
    store_plain,
    store_pooled,
    transpose_all,
)
from fastcifar.nn.amx.tiles import (
    BLOCK,
    TILE_BYTES,
    TILE_ROW_BYTES,
    TILE_ROWS,
    add_product,
    configure,
    load_block,
    release,
    store_block,
    zero_block,
)
from fastcifar.runtime.kernel_cache import compiled, source_digest
from fastcifar.runtime.simd import function, memory, vector
from fastcifar.runtime.simd.memory import address, aligned_zeros
from fastcifar.runtime.simd.vector import LANES

TAPS = 9
CHUNK = 8 * BLOCK
"""Positions of a filter gradient's products whose operands, 32 channels of each, stay in the L1 cache."""


class Kernels(NamedTuple):
    """The compiled kernels; see the functions that build them.

    All arrays are C-contiguous, float32 unless said; float16 and bfloat16 are handed over as int16. Nothing is checked.
    """

    convolve: Callable[..., None]
    filter_gradient: Callable[..., None]
    reduce: Callable[..., None]
    pack_filters: Callable[..., None]


@cache
def kernels() -> Kernels:
    """The compiled kernels; the first call of each compiles, or loads from numba's disk cache."""
    digest = source_digest(staging, tiles, function, memory, vector)
    functions = (_convolve, _filter_gradient, _reduce, _pack_filters)
    return Kernels(*(compiled(build(digest), parallel=True, nogil=True) for build in functions))


@numba.njit
def _round_up(number, multiple):
    return (number + multiple - 1) // multiple * multiple


@numba.njit
def _matrix(rows, columns, dtype):
    return aligned_zeros(rows * columns, dtype).reshape(rows, columns)


@numba.njit
def _multiply(rows, filters, sums, positions, pitch):
    """The results of 32 output channels at so many positions, from the filters (9, c / 32, 1024) of these channels."""
    row_bytes = rows.strides[0]
    for position in range(0, positions, BLOCK):
        zero_block()
        for tap in range(TAPS):
            a = address(rows) + row_bytes * (position + tap // 3 * pitch + tap % 3)
            b = address(filters[tap])
            for _ in range(filters.shape[1]):
                add_product(a, row_bytes, b, TILE_BYTES)
                a, b = a + 2 * BLOCK, b + 2 * TILE_BYTES
        store_block(address(sums) + position * ROW, ROW)


def _convolve(digest: str) -> Callable[..., None]:
    def convolve(
        x, indices_in, filters, y, indices_out, scale, height, width, inset_in, inset_out, images, threads, tile_rows
    ):
        """Correlation of x (n, h, w, c), padded by 1, with packed filters (k / 32, 9, c / 32, 1024).

        y (n, h, w, k): the results, float16, or float32 and then multiplied by scale (1,). With inset_out 1 it lacks
        the border of one pixel that padding adds; with inset_in 1 x lacks it and is surrounded by zeros.
        indices_in: empty, or uint8 like x; then x is the gradient (n, h // 2, w // 2, c) of max-pooling, float16, with
        c a multiple of 16, and is unpooled first. indices_out: empty, or uint8 like y; then y (n, h // 2, w // 2, k) is
        float16 and max-pooled, with k a multiple of 16. images: how many a thread takes at a time.
        """
        assert digest  # part of the disk cache's key: numba does not notice edits of what a kernel calls
        parts, pitch = (len(x) + images - 1) // images, width + 1
        image = (height + 1) * pitch
        for thread in numba.prange(threads):
            configure(address(tile_rows))
            rows = _matrix(_round_up(images * image, BLOCK) + 2 * pitch + 2, filters.shape[2] * BLOCK, np.int16)
            sums = _matrix(_round_up(images * image, BLOCK), BLOCK, np.float32)
            for part in range(thread * parts // threads, (thread + 1) * parts // threads):
                first, last = part * images, min(len(x), (part + 1) * images)
                for i in range(first, last):
                    start = (i - first) * image + (1 + inset_in) * (pitch + 1)
                    if indices_in.size:
                        stage_unpooled(x[i], indices_in[i], rows, start, pitch)
                    else:
                        stage(x[i], rows, start, pitch)
                for block in range(len(filters)):
                    _multiply(rows, filters[block], sums, (last - first) * image, pitch)
                    for i in range(first, last):
                        start = (i - first) * image + inset_out * (pitch + 1)
                        if indices_out.size:
                            store_pooled(sums, y[i], indices_out[i], block * BLOCK, start, pitch)
                        else:
                            store_plain(sums, y[i], scale, block * BLOCK, start, pitch)
            release()

    return convolve


@numba.njit
def _add_outer_products(columns, pairs, sums, pitch, lead, fresh):
    """Adds the products of all positions to sums (k / 32, c / 32, 9, 32, 32); `fresh` sets them instead.

    The gradients, transposed, are the left matrix: its rows can begin anywhere, so they are moved, not x.
    """
    row_bytes, next_tile, positions = columns.strides[0], pairs.strides[0], 2 * pairs.shape[1]
    for k in range(sums.shape[0]):
        for c in range(sums.shape[1]):
            for chunk in range(0, positions, CHUNK):
                for tap in range(TAPS):
                    if fresh and chunk == 0:
                        zero_block()
                    else:
                        load_block(address(sums[k, c, tap]), ROW)
                    first = lead + chunk - (tap // 3 * pitch + tap % 3)
                    a = address(columns) + row_bytes * BLOCK * k + 2 * first
                    b = address(pairs) + next_tile * 2 * c + TILE_ROW_BYTES * chunk // 2
                    for _ in range(chunk, min(positions, chunk + CHUNK), BLOCK):
                        add_product(a, row_bytes, b, next_tile)
                        a, b = a + 2 * BLOCK, b + TILE_BYTES
                    store_block(address(sums[k, c, tap]), ROW)


def _filter_gradient(digest: str) -> Callable[..., None]:
    def filter_gradient(x, gradient, pool_indices, sums, height, width, inset, images, threads, tile_rows):
        """Gradient of the filters, a part from each thread, into sums (threads, k / 32, c / 32, 9, 32, 32).

        x (n, h, w, c) is float32; gradient, pool_indices and inset are like y, indices_out and inset_out of
        `convolve`, the gradient float16. k and c are rounded up to multiples of 32 in sums, which is overwritten.
        """
        assert digest
        outputs, channels = sums.shape[1] * BLOCK, sums.shape[2] * BLOCK
        parts, pitch = (len(x) + images - 1) // images, width + 1
        image, lead = (height + 1) * pitch, _round_up(2 * pitch + 2, BLOCK)
        positions = _round_up(images * image, BLOCK) + lead
        # an odd number of cache lines, or the rows would compete for the same sets of the L1 cache
        column = _round_up(lead + positions, 2 * BLOCK) + BLOCK
        for thread in numba.prange(threads):
            configure(address(tile_rows))
            x_rows, gradient_rows = _matrix(positions, channels, np.int16), _matrix(positions, outputs, np.int16)
            columns = _matrix(outputs, column, np.int16)
            pairs = aligned_zeros(channels * positions, np.int16).reshape(channels // LANES, positions // 2, BLOCK)
            own, end = thread * parts // threads, (thread + 1) * parts // threads
            if own == end:
                sums[thread] = 0
            for part in range(own, end):
                first, last = part * images, min(len(x), (part + 1) * images)
                if last - first < images:  # fewer than before: nothing may stay behind
                    gradient_rows[:] = 0
                for i in range(first, last):
                    start = (i - first) * image
                    stage(x[i], x_rows, start + pitch + 1, pitch)
                    start += inset * (pitch + 1)
                    if pool_indices.size:
                        stage_unpooled(gradient[i], pool_indices[i], gradient_rows, start, pitch)
                    else:
                        stage(gradient[i], gradient_rows, start, pitch)
                interleave_all(x_rows, pairs)
                transpose_all(gradient_rows, columns, lead)
                _add_outer_products(columns, pairs, sums[thread], pitch, lead, part == own)
            release()

    return filter_gradient


def _reduce(digest: str) -> Callable[..., None]:
    def reduce(sums, weight, scale, threads):
        """Adds the threads' parts of `filter_gradient`, times scale (1,), into the gradient of a weight (k, 9, c)."""
        assert digest
        outputs, channels = weight.shape[0], weight.shape[2]
        for k in numba.prange(outputs):
            for block in range(sums.shape[2]):
                first, last = block * BLOCK, min(channels, (block + 1) * BLOCK)
                for tap in range(TAPS):
                    total = weight[k, tap, first:last]
                    total[:] = sums[0, k // BLOCK, block, tap, k % BLOCK, : last - first]
                    for thread in range(1, len(sums)):
                        total += sums[thread, k // BLOCK, block, tap, k % BLOCK, : last - first]
                    total *= scale[0]

    return reduce


def _pack_filters(digest: str) -> Callable[..., None]:
    def pack_filters(weight, rotated, filters, threads):
        """Rounds weight (k, 9, c), k and c multiples of 32, into filters (k / 32, 9, c / 32, 1024) for `convolve`.

        rotated: by 180 degrees and with k and c exchanged, (c / 32, 9, k / 32, 1024), as the input's gradient needs it.
        """
        assert digest
        row_bytes, tap_bytes = weight.strides[0], weight.strides[1]
        blocks, terms = len(filters), filters.shape[2]
        for item in numba.prange(blocks * TAPS):
            block, tap = item // TAPS, item % TAPS
            for term in range(terms):
                for half in range(2):
                    target = address(filters[block, tap, term]) + TILE_BYTES * half
                    column = block * BLOCK + half * TILE_ROWS
                    if rotated:
                        source = address(weight) + row_bytes * BLOCK * term + tap_bytes * (TAPS - 1 - tap) + 4 * column
                        pack_rotated(source, row_bytes, target)
                    else:
                        source = address(weight) + row_bytes * column + tap_bytes * tap + 4 * BLOCK * term
                        pack(source, row_bytes, target)

    return pack_filters
