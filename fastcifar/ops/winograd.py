"""3x3 convolutions on a CPU by Winograd's F(4x4, 3x3), the pooling behind them included: half the time of a direct one.

A thread takes some pictures at a time, so that all of them between two reads of memory stays in its L2 cache: a
picture is staged inside a border of zeros, its tiles are transformed, 36 matrix products follow for 32 output channels
at a time, and their results are transformed back and pooled on their way out. Which thread takes what depends on the
number of threads alone, so results repeat for the same number.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
from numba.core.registry import cpu_target

from fastcifar.kernel_cache import compiled
from fastcifar.ops import blocks, tiles, vectors
from fastcifar.ops.blocks import (
    FEW_HALVES,
    SLAB,
    SLAB_BYTES,
    leave_plain,
    leave_pooled,
    multiply,
    multiply_halves,
    stage,
    stage_unpooled,
    tile_start,
    transform_gradient,
    transform_input,
    zeros_for_staging,
)
from fastcifar.ops.tiles import (
    POINTS,
    PRODUCTS,
    TILE,
    filter_gradient_transform,
    filter_transform,
    half_filter_transform,
)
from fastcifar.ops.vectors import BYTES, LANES, address, aligned_zeros


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


def _build(source_digest: str) -> Kernels:
    def convolve(x, chosen_in, filters, y, chosen_out, factor, height, width, images, threads, wide, half):
        assert source_digest  # part of the disk cache's key: numba does not notice edits of what a kernel calls
        number, channels, outputs = len(x), x.shape[3], y.shape[3]
        lanes = (channels + LANES - 1) // LANES * LANES
        across, down = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
        per_image = across * down
        room = (images * per_image + FEW_HALVES - 1) // FEW_HALVES * FEW_HALVES
        size = 2 if half else 4
        blocks = (number + images - 1) // images
        for thread in numba.prange(threads):
            padded = zeros_for_staging(TILE * down + 2, TILE * across + 2, lanes)
            padded_right = 4 * lanes
            padded_down = padded.shape[1] * padded_right
            # a line more from one product to the next, or all 36 would fall on the same few places of the L1 cache
            values_between, results_between = room * size * lanes + BYTES, room * SLAB_BYTES + BYTES
            values = aligned_zeros(PRODUCTS * values_between // 4)
            results = aligned_zeros(PRODUCTS * results_between // 4)
            spill = aligned_zeros(TILE * TILE * LANES).reshape(TILE, TILE, LANES)
            spill_codes = np.zeros((2, 2, LANES), np.uint8)
            for block in range(thread * blocks // threads, (thread + 1) * blocks // threads):
                first, last = block * images, min(number, (block + 1) * images)
                for i in range(first, last):
                    if chosen_in.size:
                        stage_unpooled(padded, x[i], chosen_in[i], 1)
                    else:
                        stage(padded, x[i], 1)
                    for tile in range(per_image):
                        source = tile_start(padded, tile, across)
                        target = address(values) + size * lanes * ((i - first) * per_image + tile)
                        transform_input(source, padded_down, padded_right, target, values_between, lanes, half)
                for slab in range(len(filters)):
                    for p in range(PRODUCTS):
                        value, result = address(values) + p * values_between, address(results) + p * results_between
                        if half:
                            before = (slab * PRODUCTS + p) * channels * SLAB
                            multiply_halves(
                                value, 2 * lanes, 2, address(filters) + 2 * before,
                                result, (last - first) * per_image, channels, False,
                            )  # fmt: skip
                        else:
                            multiply(
                                value, 4 * lanes, 4, address(filters[slab, p]),
                                result, (last - first) * per_image, channels, wide, False,
                            )  # fmt: skip
                    for i in range(first, last):
                        for tile in range(per_image):
                            row, column = tile // across, tile % across
                            source = address(results) + ((i - first) * per_image + tile) * SLAB_BYTES
                            for channel in range(SLAB * slab, min(SLAB * (slab + 1), outputs), LANES):
                                if chosen_out.size:
                                    leave_pooled(
                                        y[i], chosen_out[i], source, results_between, spill, spill_codes,
                                        TILE // 2 * row, TILE // 2 * column, channel,
                                    )  # fmt: skip
                                else:
                                    leave_plain(
                                        y[i], source, results_between, spill, TILE * row, TILE * column,
                                        channel, min(LANES, outputs - channel), factor,
                                    )  # fmt: skip
                                source += BYTES

    def filter_gradient(x, gradient, chosen, sums, images, threads, wide, half):
        assert source_digest
        number, height, width, channels = x.shape
        slabs, summed_channels = sums.shape[1], sums.shape[3]
        lanes, outputs = (channels + LANES - 1) // LANES * LANES, slabs * SLAB
        across, down = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
        per_image = across * down
        room = images * per_image
        size = 2 if half else 4
        blocks = (number + images - 1) // images
        for thread in numba.prange(threads):
            padded = zeros_for_staging(TILE * down + 2, TILE * across + 2, lanes)
            padded_right = 4 * lanes
            padded_down = padded.shape[1] * padded_right
            staged = zeros_for_staging(TILE * down, TILE * across, outputs)
            staged_right = 4 * outputs
            staged_down = staged.shape[1] * staged_right
            values_between, results_between = room * size * lanes + BYTES, room * size * SLAB + BYTES
            values = aligned_zeros(PRODUCTS * values_between // 4)
            results = aligned_zeros(slabs * PRODUCTS * results_between // 4)
            sums[thread] = 0
            for block in range(thread * blocks // threads, (thread + 1) * blocks // threads):
                first, last = block * images, min(number, (block + 1) * images)
                for i in range(first, last):
                    stage(padded, x[i], 1)
                    if chosen.size:
                        stage_unpooled(staged, gradient[i], chosen[i], 0)
                    else:
                        stage(staged, gradient[i], 0)
                    for tile in range(per_image):
                        place = (i - first) * per_image + tile
                        source, target = tile_start(padded, tile, across), address(values) + size * lanes * place
                        transform_input(source, padded_down, padded_right, target, values_between, lanes, half)
                        source = tile_start(staged, tile, across)
                        for slab in range(slabs):
                            target = address(results) + slab * PRODUCTS * results_between + place * size * SLAB
                            transform_gradient(
                                source + slab * SLAB_BYTES, staged_down, staged_right, target, results_between, half
                            )
                for slab in range(slabs):
                    for p in range(PRODUCTS):
                        value = address(values) + p * values_between
                        result = address(results) + (slab * PRODUCTS + p) * results_between
                        total = address(sums[thread, slab, p])
                        if half:
                            multiply_halves(
                                value, 2, 2 * lanes, result, total, summed_channels, (last - first) * per_image, True
                            )
                        else:
                            multiply(
                                value, 4, 4 * lanes, result, total, summed_channels, (last - first) * per_image,
                                wide, True,
                            )  # fmt: skip

    def spread(weight, turned, filters, threads, half):
        assert source_digest
        inputs, outputs = weight.shape[2:]
        right = 4 * inputs * outputs
        first = address(weight) + (8 * right if turned else 0)
        right, size = -right if turned else right, 2 if half else 4
        for thread in numba.prange(threads):
            for slab in range(len(filters)):
                for c in range(thread * inputs // threads, (thread + 1) * inputs // threads):
                    for k in range(0, SLAB, LANES):
                        source = first + 4 * (c * outputs + slab * SLAB + k)
                        target = address(filters) + size * ((slab * PRODUCTS * inputs + c) * SLAB + k)
                        between = size * inputs * SLAB
                        if half:
                            half_filter_transform(source, 3 * right, right, target, POINTS * between, between)
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
def kernels() -> Kernels:
    """The compiled kernels; the first call of each compiles, or loads from numba's disk cache.

    All arrays are C-contiguous, float32 unless said, and nothing is checked. With `half` factors are float16, `wide`
    says that there are vectors of 512 bits.
    `spread(weight, turned, filters, threads, half)`: weight (3, 3, c, k), k a multiple of 32, turned by 180 degrees or
    not, to filters (k // 32, 36, c, 32) as the next kernel takes them; float16 ones fill the first half of the array.
    `convolve(x, chosen_in, filters, y, chosen_out, factor, height, width, images, threads, wide, half)`: x (n, height,
    width, c); or, with chosen_in, the gradient of its maxima, both (n, height // 2, width // 2, c), c a multiple of 16.
    y (n, height, width, k), times factor (1,); or, with chosen_out, the maxima and their places (uint8), both (n,
    height // 2, width // 2, k), k a multiple of 16; filters may have more. What is not used has no elements. `images`
    that a thread takes at a time.
    `filter_gradient(x, gradient, chosen, sums, images, threads, wide, half)`: x (n, height, width, c), the gradient of
    the results and chosen as above; sums (threads, slabs, 36, c rounded up to a multiple of 8, 32), written: each
    thread's part of the gradient of the filters.
    `collect(sums, weight, threads)`: those added up, and back to the gradient of a weight (3, 3, c, k); changes sums.
    """
    sources = (Path(module.__file__ or "") for module in (blocks, tiles, vectors))
    return _build(hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest())
