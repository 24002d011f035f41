"""3x3 convolutions on a CPU, with optional max-pooling, by Winograd's F(4x4, 3x3): 2-3x faster than direct ones.

A thread takes a few images at a time, so that everything between two accesses to main memory stays in its L2 cache. It
pads the images, transforms their tiles, and for each block of 32 output channels computes 36 GEMMs, transforms the
products and stores the outputs, pooled if asked for. With `fp16` all of that is in float16. For the filter gradient a
thread computes each of the 36 GEMMs for all outputs, because the sums of all 36 do not fit into the cache.

The number of threads alone decides which thread computes what, so the same number of threads gives the same bits.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numba
import numpy as np
from numba.core.registry import cpu_target

from fastcifar.nn.winograd import gemm, matrices, staging, tile_layout, transforms
from fastcifar.nn.winograd.gemm import BLOCK, FP32_ROW, ROW_STEP, add_outer_fp16, multiply_fp16, multiply_fp32
from fastcifar.nn.winograd.matrices import ALPHA, OUTPUT_TILE
from fastcifar.nn.winograd.staging import (
    stage,
    stage_unpooled,
    store_plain,
    store_pooled,
    transform_gradient,
    transform_input,
)
from fastcifar.nn.winograd.tile_layout import covered, gemm_tiles, tile_count, tile_grid
from fastcifar.nn.winograd.transforms import filter_gradient_transform, filter_pair_transform_fp16, filter_transform
from fastcifar.runtime.kernel_cache import compiled, source_digest
from fastcifar.runtime.simd import function, memory, vector
from fastcifar.runtime.simd.memory import CACHE_LINE, Strided2D, address, aligned_zeros, itemsize
from fastcifar.runtime.simd.vector import LANES, VECTOR_BYTES

GEMMS = ALPHA**2


class Kernels(NamedTuple):
    """The compiled kernels; see the functions that build them.

    All arrays are C-contiguous, float32 unless said; float16 arrays are handed over as int16. Nothing is checked.
    """

    convolve: Callable[..., None]
    filter_gradient: Callable[..., None]
    transform_filters: Callable[..., None]
    reduce_filter_grad: Callable[..., None]


@cache
def kernels(fp16: bool) -> Kernels:
    """The compiled kernels; the first call of each compiles, or loads from numba's disk cache."""
    digest = source_digest(gemm, matrices, staging, tile_layout, transforms, function, memory, vector)
    functions = (_convolve, _filter_gradient, _transform_filters, _reduce_filter_grad)
    return Kernels(*(compiled(build(digest, fp16), parallel=True, nogil=True) for build in functions))


def has_avx512() -> bool:
    """Whether numba compiles for 512-bit vectors."""
    target: Any = cpu_target.target_context
    return "+avx512f" in target.codegen().magic_tuple()[2]


@numba.njit
def _tile_buffer(blocks, tiles, channels, dtype):
    """(blocks * 36, tiles * channels + one cache line); see `staging.py`."""
    row = tiles * channels + CACHE_LINE // itemsize(np.zeros(0, dtype))
    return aligned_zeros(blocks * GEMMS * row, dtype).reshape(blocks * GEMMS, row)


@numba.njit
def _image_buffer(rows, columns, channels, dtype):
    return aligned_zeros(rows * columns * channels, dtype).reshape(rows, columns, channels)


def _convolve(digest: str, fp16: bool) -> Callable[..., None]:
    dtype, vector_lanes = (np.int16, 2 * LANES) if fp16 else (np.float32, LANES)

    def convolve(x, indices_in, filters, y, indices_out, scale, height, width, images, threads, avx512):
        """Correlation of x (n, h, w, c) with filters (k // 32, 36, c, 32), padded by 1, into y (n, h, w, k).

        indices_in: empty, or uint8 like x; then x is the gradient (n, h // 2, w // 2, c) of max-pooling, with c a
        multiple of 16, and is unpooled first. indices_out: empty, or uint8 like y; then y (n, h // 2, w // 2, k) is
        max-pooled, with k a multiple of 16. filters may have more outputs than y.
        height and width: of the outputs before pooling; even if pooled. images: how many a thread takes at a time.
        With fp16, x with indices_in and y with indices_out are float16 and the others may be; c is even in filters.
        A float32 y without indices_out is multiplied by scale (1,).
        """
        assert digest  # part of the disk cache's key: numba does not notice edits of what a kernel calls
        number, channels, inputs = len(x), x.shape[3], filters.shape[2]
        lanes = (channels + vector_lanes - 1) // vector_lanes * vector_lanes
        parts = (number + images - 1) // images
        for thread in numba.prange(threads):
            grid = tile_grid(height, width, 2 if indices_out.size else 3)
            rows, columns = covered(grid)
            tiles = images * tile_count(grid) + ROW_STEP
            padded = _image_buffer(rows + 2, columns + 2, lanes, dtype)
            v, m = _tile_buffer(1, tiles, lanes, dtype), _tile_buffer(1, tiles, BLOCK, dtype)
            scratch = _image_buffer(OUTPUT_TILE, OUTPUT_TILE, LANES, np.float32)
            for part in range(thread * parts // threads, (thread + 1) * parts // threads):
                first, last = part * images, min(number, (part + 1) * images)
                for i in range(first, last):
                    if indices_in.size:
                        stage_unpooled(x[i], indices_in[i], padded, 1)
                    else:
                        stage(x[i], padded, 1, rows + 1, columns + 1)
                    transform_input(padded, v, grid, i - first, last - first)
                for block in range(len(filters)):
                    for e in range(GEMMS):
                        start, count = gemm_tiles(e, grid, last - first)
                        pixel, u = padded.strides[1], address(filters[block, e])
                        v_e = address(v) + e * v.strides[0] + start * pixel
                        m_e = address(m) + e * m.strides[0] + start * BLOCK * itemsize(m)
                        if fp16:
                            multiply_fp16(Strided2D(v_e, pixel, 4), u, m_e, count, inputs // 2)
                        else:
                            multiply_fp32(Strided2D(v_e, pixel, 4), u, m_e, count, channels, avx512, False)
                    for i in range(first, last):
                        if indices_out.size:
                            store_pooled(m, y[i], indices_out[i], block * BLOCK, grid, i - first, last - first)
                        else:
                            store_plain(m, y[i], scratch, scale, block * BLOCK, grid, i - first, last - first)

    return convolve


def _filter_gradient(digest: str, fp16: bool) -> Callable[..., None]:
    dtype, vector_lanes = (np.int16, 2 * LANES) if fp16 else (np.float32, LANES)

    def filter_gradient(x, gradient, pool_indices, sums, height, width, images, threads, avx512):
        """Gradient of the transformed filters, a part from each thread, into sums (threads, k // 32, 36, c, 32).

        x (n, h, w, c); gradient and pool_indices like y and indices_out of `convolve`; height, width and images as
        there. c is rounded up to a multiple of 8 in sums, which is overwritten. With fp16 the gradient is float16.
        """
        assert digest
        number, channels = len(x), x.shape[3]
        blocks, sum_rows = sums.shape[1], sums.shape[3]
        lanes = (channels + vector_lanes - 1) // vector_lanes * vector_lanes
        parts = (number + images - 1) // images
        for thread in numba.prange(threads):
            grid = tile_grid(height, width, 2 if pool_indices.size else 3)
            rows, columns = covered(grid)
            tiles = images * tile_count(grid)
            padded_x = _image_buffer(rows + 2, columns + 2, lanes, dtype)
            padded_gradient = _image_buffer(rows, columns, blocks * BLOCK, dtype)
            v, m = _tile_buffer(1, tiles, lanes, dtype), _tile_buffer(blocks, tiles, BLOCK, dtype)
            sums[thread] = 0
            for part in range(thread * parts // threads, (thread + 1) * parts // threads):
                first, last = part * images, min(number, (part + 1) * images)
                for i in range(first, last):
                    stage(x[i], padded_x, 1, rows + 1, columns + 1)
                    transform_input(padded_x, v, grid, i - first, last - first)
                    if pool_indices.size:
                        stage_unpooled(gradient[i], pool_indices[i], padded_gradient, 0)
                    else:
                        stage(gradient[i], padded_gradient, 0, height, width)
                    transform_gradient(padded_gradient, m, grid, i - first, last - first)
                for e in range(GEMMS):
                    start, count = gemm_tiles(e, grid, last - first)
                    pixel = padded_x.strides[1]
                    v_e = address(v) + e * v.strides[0] + start * pixel
                    for block in range(blocks if count else 0):
                        m_e = address(m) + (block * GEMMS + e) * m.strides[0] + start * BLOCK * itemsize(m)
                        total = address(sums[thread, block, e])
                        if fp16:
                            add_outer_fp16(v_e, pixel, m_e, total, sum_rows, count)
                        else:
                            multiply_fp32(Strided2D(v_e, 4, pixel), m_e, total, sum_rows, count, avx512, True)

    return filter_gradient


def _transform_filters(digest: str, fp16: bool) -> Callable[..., None]:
    def transform_filters(weight, rotated, filters, threads):
        """U = G g G^T of weight (3, 3, c, k), k a multiple of 32, into filters (k // 32, 36, c, 32).

        rotated: by 180 degrees, as the gradient of the input needs it. With fp16, c is even and filters are float16,
        with two inputs interleaved: (k // 32, 36, c // 2, 32, 2).
        """
        assert digest
        inputs, outputs = weight.shape[2:]
        tap = -4 * inputs * outputs if rotated else 4 * inputs * outputs  # bytes
        start = address(weight) - 8 * tap if rotated else address(weight)
        element, step = filters.strides[1], 2 if fp16 else 1
        for thread in numba.prange(threads):
            for block in range(len(filters)):
                for i in range(thread * inputs // step // threads, (thread + 1) * inputs // step // threads):
                    for k in range(0, BLOCK, LANES):
                        g = Strided2D(start + 4 * (step * i * outputs + block * BLOCK + k), 3 * tap, tap)
                        place = address(filters[block, 0, step * i]) + itemsize(filters) * step * k
                        u = Strided2D(place, ALPHA * element, element)
                        if fp16:
                            filter_pair_transform_fp16(g, 4 * outputs, u)
                        else:
                            filter_transform(g, u)

    return transform_filters


def _reduce_filter_grad(digest: str, fp16: bool) -> Callable[..., None]:
    def reduce_filter_grad(sums, weight, threads):
        """Adds the threads' parts in sums[0] and transforms them to the gradient of a weight (3, 3, c, k)."""
        assert digest
        inputs, outputs = weight.shape[2:]
        element, tap = sums.strides[2], weight.strides[1]
        for thread in numba.prange(threads):
            for block in range(sums.shape[1]):
                for c in range(thread * inputs // threads, (thread + 1) * inputs // threads):
                    for part in range(1, len(sums)):
                        for e in range(GEMMS):
                            for k in range(BLOCK):
                                sums[0, block, e, c, k] += sums[part, block, e, c, k]
                    for offset in range(0, FP32_ROW, VECTOR_BYTES):
                        u = Strided2D(address(sums[0, block, 0, c]) + offset, ALPHA * element, element)
                        place = address(weight) + 4 * c * outputs + block * FP32_ROW + offset
                        filter_gradient_transform(u, Strided2D(place, 3 * tap, tap))

    return reduce_filter_grad
