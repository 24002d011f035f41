"""The pieces of which `winograd.py` makes its kernels, but for products: staging, transforms, and the way back."""

import numba

from fastcifar.nn.winograd.gemm import SLAB, SLAB_BYTES
from fastcifar.nn.winograd.transforms import (
    POINTS,
    TILE,
    gradient_transform,
    input_transform,
    plain_output,
    pooled_output,
    scaled_output,
    unpool,
)
from fastcifar.runtime.vectors import BYTES, FLOAT, FLOATS, HALF, HALVES, LANES, WIDE_HALVES, address, copying

copy_floats, narrow_floats, copy_halves = (
    copying(LANES, *types) for types in ((FLOAT, FLOAT), (FLOAT, HALF), (HALF, HALF))
)
copy_float, narrow_float, copy_half = (copying(1, *types) for types in ((FLOAT, FLOAT), (FLOAT, HALF), (HALF, HALF)))
unpool_floats, unpool_halves, unpool_wide_halves = (unpool(vector) for vector in (FLOATS, HALVES, WIDE_HALVES))
floats_of_input, halves_of_input = (input_transform(vector) for vector in (FLOATS, WIDE_HALVES))
floats_of_gradient, halves_of_gradient = (gradient_transform(vector) for vector in (FLOATS, WIDE_HALVES))
pooled_floats, pooled_halves, pooled_wide_halves = (pooled_output(vector) for vector in (FLOATS, HALVES, WIDE_HALVES))
scaled_floats, scaled_halves, scaled_wide_halves = (scaled_output(vector) for vector in (FLOATS, HALVES, WIDE_HALVES))
plain_halves, plain_wide_halves = plain_output(HALVES), plain_output(WIDE_HALVES)


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
    """Copies an image (h, w, c), its first rows and columns, to an address, `down` and `right` bytes apart."""
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
def transform_input(rows, columns, source, down, right, target, between, lanes, half):
    """A tile of all channels, `lanes` of them, to the factors of its products, `between` bytes apart."""
    if half:
        for c in range(0, 2 * lanes, BYTES):
            halves_of_input(rows, columns, source + c, down, right, target + c, POINTS * between, between)
    else:
        for c in range(0, 4 * lanes, BYTES):
            floats_of_input(rows, columns, source + c, down, right, target + c, POINTS * between, between)


@numba.njit
def transform_gradient(rows, columns, source, down, right, target, between, half):
    """The gradient of a tile's results at 32 channels to those of its products."""
    if half:
        halves_of_gradient(rows, columns, source, down, right, target, POINTS * between, between)
    else:
        for c in range(0, SLAB_BYTES, BYTES):
            floats_of_gradient(rows, columns, source + c, down, right, target + c, POINTS * between, between)


@numba.njit
def _leave(products, between, target, down, right, shape, lanes, size, factor, half):
    """Products of so many lanes to results of `size` bytes; those of four times factor[0]."""
    rows, columns, inside, beside = shape
    next_row, scale = POINTS * between, address(factor)
    if not half:
        scaled_floats(rows, columns, products, next_row, between, target, down, right, inside, beside, scale)
    elif size == 4 and lanes == LANES:
        scaled_halves(rows, columns, products, next_row, between, target, down, right, inside, beside, scale)
    elif size == 4:
        scaled_wide_halves(rows, columns, products, next_row, between, target, down, right, inside, beside, scale)
    elif lanes == LANES:
        plain_halves(rows, columns, products, next_row, between, target, down, right, inside, beside)
    else:
        plain_wide_halves(rows, columns, products, next_row, between, target, down, right, inside, beside)


@numba.njit
def leave_plain(image, rows, columns, products, between, spill, top, left, channel, factor, half):
    """A tile's products at up to 32 channels back into `image` (h, w, k), from (top, left) on."""
    height, width, channels = image.shape
    inside, beside = min(rows, height - top), min(columns, width - left)
    shape = (rows, columns, inside, beside)
    size = image.itemsize
    right = size * channels
    down = width * right
    last = min(channels, channel + SLAB)
    while channel < last:
        lanes = SLAB if half and channel + SLAB <= last else LANES
        target = address(image) + top * down + left * right + size * channel
        if channel + lanes <= last:
            _leave(products, between, target, down, right, shape, lanes, size, factor, half)
        else:
            _leave(products, between, address(spill), TILE * BYTES, BYTES, shape, lanes, size, factor, half)
            for y in range(inside):
                for x in range(beside):
                    source, end = address(spill) + (TILE * y + x) * BYTES, target + y * down + x * right
                    for c in range(0, size * (last - channel), size):
                        _copy(source + c, end + c, 1, size, size == 2)
        products += lanes * (2 if half else 4)
        channel += lanes


@numba.njit
def leave_pooled(image, chosen, rows, columns, products, between, top, left, channel, half):
    """The same for maxima of 2x2: `image` and `chosen` (h // 2, w // 2, k), k a multiple of 16."""
    _, width, channels = image.shape
    next_row, size = POINTS * between, image.itemsize
    right = size * channels
    down = width * right
    last = min(channels, channel + SLAB)
    while channel < last:
        place = (top * width + left) * channels + channel
        target, which, which_down = address(image) + size * place, address(chosen) + place, width * channels
        lanes = SLAB if half and channel + SLAB <= last else LANES
        if not half:
            pooled_floats(rows, columns, products, next_row, between, target, down, right, which, which_down, channels)
        elif lanes == SLAB:
            pooled_wide_halves(
                rows, columns, products, next_row, between, target, down, right, which, which_down, channels
            )
        else:
            pooled_halves(rows, columns, products, next_row, between, target, down, right, which, which_down, channels)
        products += lanes * (2 if half else 4)
        channel += lanes
