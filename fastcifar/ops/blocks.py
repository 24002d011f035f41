"""The pieces of which `winograd.py` makes its kernels: staging, products, and the way back; compiled into them."""

import numba

from fastcifar.ops.tiles import (
    POINTS,
    TILE,
    gradient_transform,
    half_gradient_transform,
    half_input_transform,
    input_transform,
    pooled_output,
    scaled_output,
    unpool,
)
from fastcifar.ops.vectors import BYTES, LANES, address, aligned_zeros, block_product, copy, half_product

SLAB = 2 * LANES
"""Output channels between two transforms."""
SLAB_BYTES = 4 * SLAB
FEW, FEW_HALVES = 4, 8
STEPS_IN_HALF = 96
"""Products that are summed in float16 before float32 takes over."""
# 24 sums, 2 vectors of factors and a number fill the 32 registers of 512 bits; 12, 2 and one the 16 of 256
product_12x32, added_12x32 = (block_product(12, 2, accumulate=accumulate) for accumulate in (False, True))
product_4x32, added_4x32 = (block_product(4, 2, accumulate=accumulate) for accumulate in (False, True))
product_6x16, added_6x16 = (block_product(6, 1, accumulate=accumulate) for accumulate in (False, True))
product_4x16, added_4x16 = (block_product(4, 1, accumulate=accumulate) for accumulate in (False, True))
half_24x32, half_added_24x32 = (half_product(24, accumulate=accumulate) for accumulate in (False, True))
half_8x32, half_added_8x32 = (half_product(8, accumulate=accumulate) for accumulate in (False, True))


@numba.njit
def zeros_for_staging(height, width, channels):
    """What `stage` and `stage_unpooled` copy into; they leave a border, and what they leave stays zero."""
    return aligned_zeros(height * width * channels).reshape(height, width, channels)


@numba.njit
def stage(padded, image, border):
    """Copies a picture (h, w, c) into the middle of `padded`."""
    height, width, channels = image.shape
    for y in range(height):
        for x in range(width):
            if channels >= LANES:
                target, source = address(padded[y + border, x + border]), address(image[y, x])
                for c in range(0, channels, LANES):
                    place = 4 * min(c, channels - LANES)  # the last sixteen may overlap those before them
                    copy(source + place, target + place)
            else:
                for c in range(channels):
                    padded[y + border, x + border, c] = image[y, x, c]


@numba.njit
def stage_unpooled(padded, gradient, chosen, border):
    """The gradient (h // 2, w // 2, c) of maxima into `padded`, where each came from."""
    height, width, channels = gradient.shape
    right = 4 * padded.shape[2]
    down = padded.shape[1] * right
    for y in range(height):
        for x in range(width):
            target = address(padded) + (2 * y + border) * down + (2 * x + border) * right
            source, which = address(gradient[y, x]), address(chosen[y, x])
            for c in range(0, channels, LANES):
                unpool(source + 4 * c, which + c, target + 4 * c, down, right)


@numba.njit(inline="always")
def tile_start(padded, tile, across):
    """The address of a tile, counted row by row with `across` a row, in a staged picture."""
    right = 4 * padded.shape[2]
    return address(padded) + TILE * right * ((tile // across) * padded.shape[1] + tile % across)


@numba.njit
def transform_input(source, down, right, target, between, lanes, half):
    """A tile of all channels, `lanes` of them, to its 36 values, `between` bytes apart; float16 ones with `half`."""
    for c in range(0, lanes, LANES):
        if half:
            half_input_transform(source + 4 * c, down, right, target + 2 * c, POINTS * between, between)
        else:
            input_transform(source + 4 * c, down, right, target + 4 * c, POINTS * between, between)


@numba.njit
def transform_gradient(source, down, right, target, between, half):
    """The gradient of a tile's results at 32 channels to those of its 36 products."""
    for c in range(0, SLAB, LANES):
        if half:
            half_gradient_transform(source + 4 * c, down, right, target + 2 * c, POINTS * between, between)
        else:
            gradient_transform(source + 4 * c, down, right, target + 4 * c, POINTS * between, between)


@numba.njit
def leave_plain(image, products, between, spill, top, left, channel, count, factor):
    """A tile's products back into `image` (h, w, k), from (top, left) on, at most 16 channels, times factor[0]."""
    height, width, channels = image.shape
    rows, columns = min(TILE, height - top), min(TILE, width - left)
    if rows == TILE and columns == TILE and count == LANES:
        target = address(image) + 4 * ((top * width + left) * channels + channel)
        scaled_output(products, POINTS * between, between, target, 4 * width * channels, 4 * channels, address(factor))
        return
    scaled_output(products, POINTS * between, between, address(spill), TILE * BYTES, BYTES, address(factor))
    for y in range(rows):
        for x in range(columns):
            if count == LANES:
                copy(address(spill[y, x]), address(image[top + y, left + x]) + 4 * channel)
            else:
                for c in range(count):
                    image[top + y, left + x, channel + c] = spill[y, x, c]


@numba.njit
def leave_pooled(image, chosen, products, between, spill, spill_codes, top, left, channel):
    """The same for maxima of 2x2: `image` and `chosen` (h // 2, w // 2, k), sixteen channels."""
    height, width, channels = image.shape
    rows, columns = min(2, height - top), min(2, width - left)
    if rows == 2 and columns == 2:
        place = (top * width + left) * channels + channel
        pooled_output(
            products, POINTS * between, between,
            address(image) + 4 * place, 4 * width * channels, 4 * channels,
            address(chosen) + place, width * channels, channels,
        )  # fmt: skip
        return
    pooled_output(
        products, POINTS * between, between, address(spill), TILE * BYTES, BYTES,
        address(spill_codes), 2 * LANES, LANES,
    )  # fmt: skip
    for y in range(rows):
        for x in range(columns):
            copy(address(spill[y, x]), address(image[top + y, left + x]) + 4 * channel)
            for c in range(LANES):
                chosen[top + y, left + x, channel + c] = spill_codes[y, x, c]


@numba.njit
def _multiply_rows(a, a_row, a_step, b, c, steps, rows, wide, add):
    """`multiply` for 12 or 4 rows; without `wide` vectors 12 are taken as twice 6."""
    if wide and rows == 12 and add:
        added_12x32(a, a_row, a_step, b, SLAB_BYTES, c, SLAB_BYTES, steps)
    elif wide and rows == 12:
        product_12x32(a, a_row, a_step, b, SLAB_BYTES, c, SLAB_BYTES, steps)
    elif wide and add:
        added_4x32(a, a_row, a_step, b, SLAB_BYTES, c, SLAB_BYTES, steps)
    elif wide:
        product_4x32(a, a_row, a_step, b, SLAB_BYTES, c, SLAB_BYTES, steps)
    else:
        for offset in range(0, SLAB_BYTES, BYTES):
            for row in range(0, rows, 6):
                left, result = a + row * a_row, c + row * SLAB_BYTES + offset
                if rows == 12 and add:
                    added_6x16(left, a_row, a_step, b + offset, SLAB_BYTES, result, SLAB_BYTES, steps)
                elif rows == 12:
                    product_6x16(left, a_row, a_step, b + offset, SLAB_BYTES, result, SLAB_BYTES, steps)
                elif add:
                    added_4x16(left, a_row, a_step, b + offset, SLAB_BYTES, result, SLAB_BYTES, steps)
                else:
                    product_4x16(left, a_row, a_step, b + offset, SLAB_BYTES, result, SLAB_BYTES, steps)


@numba.njit
def multiply(a, a_row, a_step, b, c, count, steps, wide, add):
    """c (count, 32) = a (count, steps) @ b (steps, 32), or with `add` c += ...; `wide` for vectors of 512 bits.

    As many rows more than `count` are read and written as make it a multiple of 4.
    """
    row, rows = 0, 12
    while row < count:
        if row + rows > count:
            rows = FEW
        _multiply_rows(a + row * a_row, a_row, a_step, b, c + row * SLAB_BYTES, steps, rows, wide, add)
        row += rows


@numba.njit
def multiply_halves(a, a_row, a_step, b, c, count, steps, add):
    """`multiply` of float16 factors; so many rows more are read and written that it is a multiple of 8."""
    chunks = (steps + STEPS_IN_HALF - 1) // STEPS_IN_HALF
    row, rows = 0, 24
    while row < count:
        if row + rows > count:
            rows = FEW_HALVES
        target = c + row * SLAB_BYTES
        for chunk in range(chunks):
            first, last = chunk * steps // chunks, (chunk + 1) * steps // chunks
            left, right = a + row * a_row + first * a_step, b + first * (SLAB_BYTES // 2)
            if rows == 24 and (add or chunk):
                half_added_24x32(left, a_row, a_step, right, SLAB_BYTES // 2, target, SLAB_BYTES, last - first)
            elif rows == 24:
                half_24x32(left, a_row, a_step, right, SLAB_BYTES // 2, target, SLAB_BYTES, last - first)
            elif add or chunk:
                half_added_8x32(left, a_row, a_step, right, SLAB_BYTES // 2, target, SLAB_BYTES, last - first)
            else:
                half_8x32(left, a_row, a_step, right, SLAB_BYTES // 2, target, SLAB_BYTES, last - first)
        row += rows
