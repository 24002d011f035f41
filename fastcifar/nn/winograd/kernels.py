"""3x3 convolutions on a CPU, pooled or not, by Winograd's F(4x4, 3x3): a half to a third of a direct one's time.

A thread takes some images at a time, so that all of them between two reads of memory stays in its L2 cache: a
image is staged inside a border of zeros, its tiles are transformed, 36 matrix products follow for 32 output channels
at a time, and their results are transformed back and pooled on their way out. With `half` all of that is in float16.
The filters' gradient takes one of the 36 products after the other for all outputs: its sums are too many for the cache.
Which thread takes what depends on the number of threads alone, so results repeat for the same number.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numba
from numba.core.registry import cpu_target

from fastcifar.nn.winograd import gemm as products
from fastcifar.nn.winograd import staging as blocks
from fastcifar.nn.winograd import tile_layout as geometry
from fastcifar.nn.winograd import transforms as tiles
from fastcifar.nn.winograd.gemm import FEW, SLAB, SLAB_BYTES, add_outer_halves, multiply, multiply_halves
from fastcifar.nn.winograd.staging import (
    leave_plain,
    leave_pooled,
    stage,
    stage_unpooled,
    transform_gradient,
    transform_input,
)
from fastcifar.nn.winograd.tile_layout import extent, span_of, tile_of, tiling
from fastcifar.nn.winograd.transforms import (
    POINTS,
    PRODUCTS,
    TILE,
    filter_gradient_transform,
    filter_transform,
    two_filters_transform,
)
from fastcifar.runtime import vectors
from fastcifar.runtime.kernel_cache import compiled
from fastcifar.runtime.vectors import BYTES, LANES, address, aligned_zeros


class Kernels(NamedTuple):
    """The compiled kernels; see `kernels`."""

    convolve: Callable[..., None]
    filter_gradient: Callable[..., None]
    spread: Callable[..., None]
    collect: Callable[..., None]


def has_512_bits() -> bool:
    """Whether numba compiles for vectors of 512 bits."""
    target: Any = cpu_target.target_context
    return "+avx512f" in target.codegen().magic_tuple()[2]


def _build(source_digest: str, half: bool) -> Kernels:
    size, vector = (2, 2 * LANES) if half else (4, LANES)

    def convolve(x, chosen_in, filters, y, chosen_out, factor, height, width, images, threads, wide):
        assert source_digest  # part of the disk cache's key: numba does not notice edits of what a kernel calls
        number, channels, inputs, edge = len(x), x.shape[3], filters.shape[2], 2 if chosen_out.size else 3
        lanes = (channels + vector - 1) // vector * vector
        cover = tiling(height, width, edge)
        per_image = (cover[0] + cover[1]) * (cover[2] + cover[3])
        rows, columns = extent(cover[0], cover[1], edge), extent(cover[2], cover[3], edge)
        room = images * per_image + FEW
        parts = (number + images - 1) // images
        padded_right = size * lanes
        padded_down = (columns + 2) * padded_right
        # a line more from one product to the next, or all 36 would fall on the same few places of the L1 cache
        values_between, results_between = room * size * lanes + BYTES, room * size * SLAB + BYTES
        for thread in numba.prange(threads):
            padded = aligned_zeros((rows + 2) * padded_down // 4)  # its border stays zero
            values = aligned_zeros(PRODUCTS * values_between // 4)
            results = aligned_zeros(PRODUCTS * results_between // 4)
            spill = aligned_zeros(TILE * TILE * LANES)
            for part in range(thread * parts // threads, (thread + 1) * parts // threads):
                first, last = part * images, min(number, (part + 1) * images)
                for i in range(first, last):
                    inside = address(padded) + padded_down + padded_right
                    if chosen_in.size:
                        stage_unpooled(x[i], chosen_in[i], inside, padded_down, padded_right, half)
                    else:
                        stage(x[i], inside, padded_down, padded_right, rows + 1, columns + 1, half)
                    for tile in range(per_image):
                        top, tall, left, broad, place = tile_of(tile, cover, edge, i - first, last - first)
                        source = address(padded) + top * padded_down + left * padded_right
                        target = address(values) + size * lanes * place
                        transform_input(
                            tall, broad, source, padded_down, padded_right, target, values_between, lanes, half
                        )
                for slab in range(len(filters)):
                    for p in range(PRODUCTS):
                        start, count = span_of(p, cover, edge, last - first)
                        value = address(values) + p * values_between + start * size * lanes
                        result = address(results) + p * results_between + start * size * SLAB
                        weights = address(filters) + (slab * PRODUCTS + p) * inputs * SLAB * size
                        if half:
                            multiply_halves(value, 2 * lanes, weights, result, count, inputs // 2)
                        else:
                            multiply(value, 4 * lanes, 4, weights, result, count, channels, wide, False)
                    for i in range(first, last):
                        for tile in range(per_image):
                            top, tall, left, broad, place = tile_of(tile, cover, edge, i - first, last - first)
                            source = address(results) + size * SLAB * place
                            if chosen_out.size:
                                leave_pooled(
                                    y[i], chosen_out[i], tall, broad, source, results_between,
                                    top // 2, left // 2, SLAB * slab, half,
                                )  # fmt: skip
                            else:
                                leave_plain(
                                    y[i], tall, broad, source, results_between, spill,
                                    top, left, SLAB * slab, factor, half,
                                )  # fmt: skip

    def filter_gradient(x, gradient, chosen, sums, height, width, images, threads, wide):
        assert source_digest
        number, channels, edge = len(x), x.shape[3], 2 if chosen.size else 3
        slabs, summed_channels = sums.shape[1], sums.shape[3]
        lanes = (channels + vector - 1) // vector * vector
        cover = tiling(height, width, edge)
        per_image = (cover[0] + cover[1]) * (cover[2] + cover[3])
        rows, columns = extent(cover[0], cover[1], edge), extent(cover[2], cover[3], edge)
        room = images * per_image
        parts = (number + images - 1) // images
        padded_right, staged_right = size * lanes, size * slabs * SLAB
        padded_down, staged_down = (columns + 2) * padded_right, columns * staged_right
        values_between, results_between = room * size * lanes + BYTES, room * size * SLAB + BYTES
        for thread in numba.prange(threads):
            padded = aligned_zeros((rows + 2) * padded_down // 4)
            staged = aligned_zeros(rows * staged_down // 4)
            values = aligned_zeros(PRODUCTS * values_between // 4)
            results = aligned_zeros(slabs * PRODUCTS * results_between // 4)
            sums[thread] = 0
            for part in range(thread * parts // threads, (thread + 1) * parts // threads):
                first, last = part * images, min(number, (part + 1) * images)
                for i in range(first, last):
                    inside = address(padded) + padded_down + padded_right
                    stage(x[i], inside, padded_down, padded_right, rows + 1, columns + 1, half)
                    if chosen.size:
                        stage_unpooled(gradient[i], chosen[i], address(staged), staged_down, staged_right, half)
                    else:
                        stage(gradient[i], address(staged), staged_down, staged_right, height, width, half)
                    for tile in range(per_image):
                        top, tall, left, broad, place = tile_of(tile, cover, edge, i - first, last - first)
                        source = address(padded) + top * padded_down + left * padded_right
                        target = address(values) + size * lanes * place
                        transform_input(
                            tall, broad, source, padded_down, padded_right, target, values_between, lanes, half
                        )
                        source = address(staged) + top * staged_down + left * staged_right
                        target = address(results) + size * SLAB * place
                        for _ in range(slabs):
                            transform_gradient(
                                tall, broad, source, staged_down, staged_right, target, results_between, half
                            )
                            source += size * SLAB
                            target += PRODUCTS * results_between
                for p in range(PRODUCTS):
                    start, count = span_of(p, cover, edge, last - first)
                    if count == 0:
                        continue
                    value = address(values) + p * values_between + start * size * lanes
                    for slab in range(slabs):
                        result = address(results) + (slab * PRODUCTS + p) * results_between + start * size * SLAB
                        total = address(sums[thread, slab, p])
                        if half:
                            add_outer_halves(value, 2 * lanes, result, total, summed_channels, count)
                        else:
                            multiply(value, 4, 4 * lanes, result, total, summed_channels, count, wide, True)

    def spread(weight, turned, filters, threads):
        assert source_digest
        inputs, outputs = weight.shape[2:]
        right = 4 * inputs * outputs
        first = address(weight) + (8 * right if turned else 0)
        right = -right if turned else right
        between, pace = size * inputs * SLAB, 2 if half else 1
        for thread in numba.prange(threads):
            for slab in range(len(filters)):
                for number in range(thread * inputs // pace // threads, (thread + 1) * inputs // pace // threads):
                    c = pace * number
                    for k in range(0, SLAB, LANES):
                        source = first + 4 * (c * outputs + slab * SLAB + k)
                        target = address(filters) + size * ((slab * PRODUCTS * inputs + c) * SLAB + pace * k)
                        if half:
                            two_filters_transform(
                                source, 4 * outputs, 3 * right, right, target, POINTS * between, between
                            )
                        else:
                            filter_transform(source, 3 * right, right, target, POINTS * between, between)

    def collect(sums, weight, threads):
        assert source_digest
        inputs, outputs = weight.shape[2:]
        rows, right = sums.shape[3], 4 * inputs * outputs
        for thread in numba.prange(threads):
            for slab in range(sums.shape[1]):
                for c in range(thread * inputs // threads, (thread + 1) * inputs // threads):
                    for part in range(1, len(sums)):
                        for p in range(PRODUCTS):
                            for k in range(SLAB):
                                sums[0, slab, p, c, k] += sums[part, slab, p, c, k]
                    for offset in range(0, SLAB_BYTES, BYTES):
                        filter_gradient_transform(
                            address(sums[0, slab, 0, c]) + offset, POINTS * rows * SLAB_BYTES, rows * SLAB_BYTES,
                            address(weight) + 4 * c * outputs + slab * SLAB_BYTES + offset, 3 * right, right,
                        )  # fmt: skip

    functions = (convolve, filter_gradient, spread, collect)
    return Kernels(*(compiled(function, parallel=True, nogil=True) for function in functions))


@cache
def kernels(half: bool) -> Kernels:
    """The compiled kernels; the first call of each compiles, or loads from numba's disk cache.

    With `half` products, their factors and the transforms of both are float16, else float32; `wide` says that there
    are vectors of 512 bits. All arrays are C-contiguous, float32 unless said, float16 ones are handed over as the
    int16 of the same bits, and nothing is checked.
    `spread(weight, turned, filters, threads)`: weight (3, 3, c, k), k a multiple of 32, turned by 180 degrees or
    not, to filters (k // 32, 36, c, 32) as the next kernel takes them; with `half` c is even, and the first half of the
    array is filled with (k // 32, 36, c // 2, 32, 2): two inputs by turns. For an odd c weights of zero make it even.
    `convolve(x, chosen_in, filters, y, chosen_out, factor, height, width, images, threads, wide)`: x (n, h, w, c); or,
    with chosen_in, the gradient of its maxima, both (n, h // 2, w // 2, c), c a multiple of 16. y (n, h, w, k); or,
    with chosen_out, the maxima and their places (uint8), both (n, h // 2, w // 2, k), k a multiple of 16; filters may
    have more. What is not used has no elements. height and width: h and w, or, with chosen_out, the even numbers of
    rows and columns that are pooled. `images` that a thread takes at a time. With `half` x with chosen_in and y with
    chosen_out are float16, without them either; a float32 y without them is the results times factor (1,).
    `filter_gradient(x, gradient, chosen, sums, height, width, images, threads, wide)`: x (n, h, w, c), the gradient of
    the results and chosen, height and width as above; sums (threads, slabs, 36, c rounded up to a multiple of 8, 32),
    written: each thread's part of the gradient of the filters.
    `collect(sums, weight, threads)`: those added up, and back to the gradient of a weight (3, 3, c, k); changes sums.
    """
    sources = (Path(module.__file__ or "") for module in (blocks, products, tiles, geometry, vectors))
    return _build(hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest(), half)
