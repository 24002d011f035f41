"""From feature maps to the operands of the GEMMs and back: padding, unpooling, tile transforms, storing.

A thread works on a few images at a time, in buffers of its own:
- padded (rows, columns, c): an image inside a border of zeros, or a gradient without one
- v (36, tiles * c + one cache line): transformed input tiles; row e holds element e of every tile
- m (blocks * 36, tiles * 32 + one cache line): the products of 32 output channels, or the gradients of all blocks

They are float32, or float16 handed over as int16. c is a multiple of 64 bytes. Tiles are in the order of `tile_index`.
Each row is padded by one cache line, or the 36 elements of a tile would compete for the same sets of the L1 cache.
"""

import numba

from fastcifar.nn.winograd.gemm import BLOCK
from fastcifar.nn.winograd.matrices import ALPHA
from fastcifar.nn.winograd.tile_layout import locate_tile, tile_count
from fastcifar.nn.winograd.transforms import (
    copy,
    input_transform,
    output_gradient_transform,
    output_transform,
    pooled_output_transform,
    unpool,
)
from fastcifar.runtime.simd.memory import Strided2D, address, itemsize
from fastcifar.runtime.simd.vector import LANES, VECTOR_BYTES


@numba.njit
def _pixels(array):
    """The pixels of an array (h, w, c). It lives as long as the caller's function runs."""
    return Strided2D(address(array), array.strides[0], array.strides[1])


@numba.njit
def _elements(buffer):
    """The 6x6 elements of the first transformed tile: one in each row of v or m."""
    return Strided2D(address(buffer), ALPHA * buffer.strides[0], buffer.strides[0])


@numba.njit
def _shift(grid, offset):
    return Strided2D(grid.address + offset, grid.row_stride, grid.column_stride)


@numba.njit
def _move(grid, row, column):
    return _shift(grid, row * grid.row_stride + column * grid.column_stride)


@numba.njit
def stage(image, padded, border, rows, columns):
    """Copies an image (h, w, c), at most so many rows and columns, into `padded` from (border, border) on."""
    height, width, channels = image.shape
    lanes = LANES if channels >= LANES else 1
    size, padded_size = itemsize(image), itemsize(padded)
    sources, targets = _pixels(image), _move(_pixels(padded), border, border)
    for y in range(min(height, rows)):
        for x in range(min(width, columns)):
            source, target = _move(sources, y, x).address, _move(targets, y, x).address
            for c in range(0, channels, lanes):
                first = min(c, channels - lanes)  # the last 16 may overlap those before them
                copy(lanes, size, padded_size, source + size * first, target + padded_size * first)


@numba.njit
def stage_unpooled(gradient, pool_indices, padded, border):
    """Spreads the gradient (h, w, c) of maxima over their 2x2 windows in `padded`, from (border, border) on."""
    height, width, channels = gradient.shape
    size = itemsize(gradient)
    sources, indices, targets = _pixels(gradient), _pixels(pool_indices), _move(_pixels(padded), border, border)
    for y in range(height):
        for x in range(width):
            source, index, target = _move(sources, y, x), _move(indices, y, x), _move(targets, 2 * y, 2 * x)
            c = 0
            while c < channels:
                lanes = 2 * LANES if size == 2 and c + 2 * LANES <= channels else LANES
                unpool(size, lanes, source.address + size * c, index.address + c, _shift(target, size * c))
                c += lanes


@numba.njit
def transform_input(padded, v, grid, image, images):
    """Transforms all tiles of one of `images` images, in all channels, from `padded` into v."""
    size, pixels, elements = itemsize(padded), _pixels(padded), _elements(v)
    pixel_bytes = pixels.column_stride
    for number in range(tile_count(grid)):
        tile = locate_tile(number, grid, image, images)
        source, target = _move(pixels, tile.top, tile.left), _shift(elements, tile.place * pixel_bytes)
        for offset in range(0, pixel_bytes, VECTOR_BYTES):
            input_transform(size, tile.rows, tile.columns, _shift(source, offset), _shift(target, offset))


@numba.njit
def transform_gradient(padded, m, grid, image, images):
    """Transforms the gradient of an image's outputs, all tiles and channels, from `padded` into m."""
    size, pixels, elements = itemsize(padded), _pixels(padded), _elements(m)
    blocks, block_bytes = padded.shape[2] // BLOCK, size * BLOCK
    for number in range(tile_count(grid)):
        tile = locate_tile(number, grid, image, images)
        source = _move(pixels, tile.top, tile.left)
        for block in range(blocks):
            target = _shift(_move(elements, block * ALPHA, 0), tile.place * block_bytes)
            for offset in range(0, block_bytes, VECTOR_BYTES):
                part = _shift(source, block * block_bytes + offset)
                output_gradient_transform(size, tile.rows, tile.columns, part, _shift(target, offset))


@numba.njit
def store_plain(m, y, scratch, scale, channel, grid, image, images):
    """Transforms the products of up to 32 channels to outputs, into an image y (h, w, k) from `channel` on.

    A float32 y is multiplied by scale (1,). scratch (4, 4, 16) float32 takes what does not fill a vector.
    """
    height, width, channels = y.shape
    m_size, size = itemsize(m), itemsize(y)
    elements, pixels, spill, factor = _elements(m), _pixels(y), _pixels(scratch), address(scale)
    last = min(channels, channel + BLOCK)
    for number in range(tile_count(grid)):
        tile = locate_tile(number, grid, image, images)
        target = _move(pixels, tile.top, tile.left)
        rows, columns = min(tile.rows, height - tile.top), min(tile.columns, width - tile.left)
        c = channel
        while c < last:
            lanes = 2 * LANES if m_size == 2 and c + 2 * LANES <= last else LANES
            source = _shift(elements, m_size * (tile.place * BLOCK + c - channel))
            fits = c + lanes <= last
            place = _shift(target, size * c) if fits else spill
            output_transform(
                m_size, lanes, size, tile.rows, tile.columns, source, place, rows, columns, factor
            )  # fmt: skip
            if not fits:
                _copy_channels(spill, _shift(target, size * c), rows, columns, last - c, size)
            c += lanes


@numba.njit
def _copy_channels(sources, targets, rows, columns, channels, size):
    for y in range(rows):
        for x in range(columns):
            source, target = _move(sources, y, x).address, _move(targets, y, x).address
            for offset in range(0, size * channels, size):
                copy(1, size, size, source + offset, target + offset)


@numba.njit
def store_pooled(m, y, pool_indices, channel, grid, image, images):
    """As `store_plain`, with 2x2 max-pooling: y and pool_indices (h // 2, w // 2, k), k a multiple of 16."""
    m_size, elements, maxima, indices = itemsize(m), _elements(m), _pixels(y), _pixels(pool_indices)
    last = min(y.shape[2], channel + BLOCK)
    for number in range(tile_count(grid)):
        tile = locate_tile(number, grid, image, images)
        top, left = tile.top // 2, tile.left // 2
        target, index = _move(maxima, top, left), _move(indices, top, left)
        c = channel
        while c < last:
            lanes = 2 * LANES if m_size == 2 and c + 2 * LANES <= last else LANES
            source = _shift(elements, m_size * (tile.place * BLOCK + c - channel))
            pooled_output_transform(
                m_size, lanes, tile.rows, tile.columns, source, _shift(target, m_size * c), _shift(index, c)
            )
            c += lanes
