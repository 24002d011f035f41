"""The pieces of which `winograd.py` makes its kernels: staging, products, and the way back; compiled into them."""

import numba

from fastcifar.ops.tiles import (
    INPUT,
    OUTPUT,
    POINTS,
    TILE,
    plain_output,
    pooled_output,
    scaled_output,
    tile_transform,
    unpool,
)
from fastcifar.ops.vectors import (
    BYTES,
    FLOAT,
    FLOATS,
    HALF,
    HALVES,
    LANES,
    WIDE_HALVES,
    address,
    block_product,
    copying,
    half_product,
)

SLAB = 2 * LANES
"""Output channels between two transforms."""
SLAB_BYTES = 4 * SLAB
FEW, FEW_HALVES = 4, 8
STEPS_IN_HALF = 96
"""Products that are summed in float16 before the sum is added to the others."""
copy_floats, narrow_floats, copy_halves = (
    copying(LANES, *types) for types in ((FLOAT, FLOAT), (FLOAT, HALF), (HALF, HALF))
)
copy_float, narrow_float, copy_half = (copying(1, *types) for types in ((FLOAT, FLOAT), (FLOAT, HALF), (HALF, HALF)))
unpool_floats, unpool_halves, unpool_wide_halves = (unpool(vector) for vector in (FLOATS, HALVES, WIDE_HALVES))
floats_of_input, halves_of_input = (tile_transform(INPUT, vector) for vector in (FLOATS, WIDE_HALVES))
floats_of_gradient, halves_of_gradient = (tile_transform(OUTPUT.T, vector) for vector in (FLOATS, WIDE_HALVES))
pooled_floats, pooled_halves, pooled_wide_halves = (pooled_output(vector) for vector in (FLOATS, HALVES, WIDE_HALVES))
scaled_floats, scaled_halves, scaled_wide_halves = (scaled_output(vector) for vector in (FLOATS, HALVES, WIDE_HALVES))
plain_halves, plain_wide_halves = plain_output(HALVES), plain_output(WIDE_HALVES)
# 24 sums, 2 vectors of factors and a number fill the 32 registers of 512 bits; 12, 2 and one the 16 of 256
product_12x32, added_12x32 = (block_product(12, 2, accumulate=accumulate) for accumulate in (False, True))
product_4x32, added_4x32 = (block_product(4, 2, accumulate=accumulate) for accumulate in (False, True))
product_6x16, added_6x16 = (block_product(6, 1, accumulate=accumulate) for accumulate in (False, True))
product_4x16, added_4x16 = (block_product(4, 1, accumulate=accumulate) for accumulate in (False, True))
half_24x32, half_8x32 = (half_product(rows, accumulate=False, total=HALF) for rows in (24, 8))
half_added_24x32, half_added_8x32 = (half_product(rows, accumulate=True, total=HALF) for rows in (24, 8))
half_summed_24x32, half_summed_8x32 = (half_product(rows, accumulate=True, total=FLOAT) for rows in (24, 8))


@numba.njit
def _copy(source, target, lanes, size, half):
    """Sixteen numbers or one, of `size` bytes each, to float16 with `half`, else to float32."""
    if lanes == 1:
        if not half:
            copy_float(source, target)
        elif size == 4:
            narrow_float(source, target)
        else:
            copy_half(source, target)
    elif not half:
        copy_floats(source, target)
    elif size == 4:
        narrow_floats(source, target)
    else:
        copy_halves(source, target)


@numba.njit
def stage(image, target, down, right, rows, columns, half):
    """Copies a picture (h, w, c), its first rows and columns, to an address, `down` and `right` bytes apart."""
    height, width, channels = image.shape
    size, to, lanes = image.itemsize, 2 if half else 4, LANES if channels >= LANES else 1
    for y in range(min(height, rows)):
        for x in range(min(width, columns)):
            start, end = address(image[y, x]), target + y * down + x * right
            for c in range(0, channels, lanes):
                place = min(c, channels - lanes)  # the last sixteen may overlap those before them
                _copy(start + size * place, end + to * place, lanes, size, half)


@numba.njit
def stage_unpooled(gradient, chosen, target, down, right, half):
    """The gradient (h // 2, w // 2, c) of maxima, as `stage`, each where it came from."""
    height, width, channels = gradient.shape
    for y in range(height):
        for x in range(width):
            end = target + 2 * y * down + 2 * x * right
            start, which = address(gradient[y, x]), address(chosen[y, x])
            c = 0
            while c < channels:
                if not half:
                    unpool_floats(start + 4 * c, which + c, end + 4 * c, down, right)
                    c += LANES
                elif c + 2 * LANES <= channels:
                    unpool_wide_halves(start + 2 * c, which + c, end + 2 * c, down, right)
                    c += 2 * LANES
                else:
                    unpool_halves(start + 2 * c, which + c, end + 2 * c, down, right)
                    c += LANES


@numba.njit
def transform_input(source, down, right, target, between, lanes, half):
    """A tile of all channels, `lanes` of them, to its 36 values, `between` bytes apart."""
    if half:
        for c in range(0, 2 * lanes, BYTES):
            halves_of_input(source + c, down, right, target + c, POINTS * between, between)
    else:
        for c in range(0, 4 * lanes, BYTES):
            floats_of_input(source + c, down, right, target + c, POINTS * between, between)


@numba.njit
def transform_gradient(source, down, right, target, between, half):
    """The gradient of a tile's results at 32 channels to those of its 36 products."""
    if half:
        halves_of_gradient(source, down, right, target, POINTS * between, between)
    else:
        for c in range(0, SLAB_BYTES, BYTES):
            floats_of_gradient(source + c, down, right, target + c, POINTS * between, between)


@numba.njit
def _leave(products, between, target, down, right, rows, columns, lanes, size, factor, half):
    """Products of so many lanes to results of `size` bytes; those of four times factor[0]."""
    if not half:
        scaled_floats(
            products, POINTS * between, between, target, down, right, rows, columns, address(factor)
        )
    elif size == 4 and lanes == LANES:
        scaled_halves(
            products, POINTS * between, between, target, down, right, rows, columns, address(factor)
        )
    elif size == 4:
        scaled_wide_halves(
            products, POINTS * between, between, target, down, right, rows, columns, address(factor)
        )
    elif lanes == LANES:
        plain_halves(products, POINTS * between, between, target, down, right, rows, columns)
    else:
        plain_wide_halves(products, POINTS * between, between, target, down, right, rows, columns)


@numba.njit
def leave_plain(image, products, between, spill, top, left, channel, factor, half):
    """A tile's products at up to 32 channels back into `image` (h, w, k), from (top, left) on."""
    height, width, channels = image.shape
    rows, columns = min(TILE, height - top), min(TILE, width - left)
    size = image.itemsize
    right = size * channels
    down = width * right
    last = min(channels, channel + SLAB)
    while channel < last:
        lanes = SLAB if half and channel + SLAB <= last else LANES
        target = address(image) + top * down + left * right + size * channel
        if channel + lanes <= last:
            _leave(products, between, target, down, right, rows, columns, lanes, size, factor, half)
        else:
            _leave(
                products, between, address(spill), TILE * BYTES, BYTES, rows, columns, lanes, size, factor, half
            )
            for y in range(rows):
                for x in range(columns):
                    for c in range(last - channel):
                        _copy(
                            address(spill) + (TILE * y + x) * BYTES + size * c, target + y * down + x * right + size * c,
                            1, size, size == 2,
                        )  # fmt: skip
        products += lanes * (2 if half else 4)
        channel += lanes


@numba.njit
def leave_pooled(image, chosen, products, between, top, left, channel, half):
    """The same for maxima of 2x2: `image` and `chosen` (h // 2, w // 2, k), k a multiple of 16."""
    height, width, channels = image.shape
    rows, columns = min(2, height - top), min(2, width - left)
    size = image.itemsize
    right = size * channels
    last = min(channels, channel + SLAB)
    while channel < last:
        place = (top * width + left) * channels + channel
        target, which = address(image) + size * place, address(chosen) + place
        if not half:
            pooled_floats(
                products, POINTS * between, between, target, width * right, right,
                which, width * channels, channels, rows, columns,
            )  # fmt: skip
            lanes = LANES
        elif channel + SLAB <= last:
            pooled_wide_halves(
                products, POINTS * between, between, target, width * right, right,
                which, width * channels, channels, rows, columns,
            )  # fmt: skip
            lanes = SLAB
        else:
            pooled_halves(
                products, POINTS * between, between, target, width * right, right,
                which, width * channels, channels, rows, columns,
            )  # fmt: skip
            lanes = LANES
        products += lanes * (2 if half else 4)
        channel += lanes


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
def _multiply_rows_of_halves(a, a_row, a_step, b, c, steps, rows, total, add):
    """`multiply_halves` for 24 or 8 rows."""
    between = SLAB * total
    if rows == 24 and total == 4:
        half_summed_24x32(a, a_row, a_step, b, 2 * SLAB, c, between, steps)
    elif total == 4:
        half_summed_8x32(a, a_row, a_step, b, 2 * SLAB, c, between, steps)
    elif rows == 24 and add:
        half_added_24x32(a, a_row, a_step, b, 2 * SLAB, c, between, steps)
    elif rows == 24:
        half_24x32(a, a_row, a_step, b, 2 * SLAB, c, between, steps)
    elif add:
        half_added_8x32(a, a_row, a_step, b, 2 * SLAB, c, between, steps)
    else:
        half_8x32(a, a_row, a_step, b, 2 * SLAB, c, between, steps)


@numba.njit
def multiply_halves(a, a_row, a_step, b, c, count, steps, total):
    """The same of float16 factors: c = a @ b of float16 where `total` is 2 bytes, and c += a @ b of float32 with 4.

    As many rows more than `count` are read and written as make it a multiple of 8.
    """
    chunks = (steps + STEPS_IN_HALF - 1) // STEPS_IN_HALF
    row, rows = 0, 24
    while row < count:
        if row + rows > count:
            rows = FEW_HALVES
        for chunk in range(chunks):
            first, last = chunk * steps // chunks, (chunk + 1) * steps // chunks
            _multiply_rows_of_halves(
                a + row * a_row + first * a_step, a_row, a_step, b + first * 2 * SLAB, c + row * SLAB * total,
                last - first, rows, total, chunk > 0,
            )  # fmt: skip
        row += rows
