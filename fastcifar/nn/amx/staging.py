"""From feature maps to the operands of the tile products and back: padding, unpooling, transposing, storing.

A thread lays a few images out as one sequence of pixels, `rows` (positions, c), in bfloat16 handed over as int16; c is
a multiple of 32. Each row of an image begins with a zero, which also ends the row before it, and each image with a row
of zeros, which also ends the image before it. So with pitch = width + 1, pixel (y, x) of image i lies at position
`start + i * (height + 1) * pitch + y * pitch + x`, and all pixels that a filter's tap meets are the pixels of its
results, moved by one and the same number of positions. The results at the zeros between rows are never stored.
"""

from itertools import product

import numba
from llvmlite import ir

from fastcifar.nn.amx.tiles import BLOCK
from fastcifar.runtime.simd.function import simd_function, variants
from fastcifar.runtime.simd.memory import address, at, broadcast, itemsize, load, store
from fastcifar.runtime.simd.vector import (
    BF16,
    FP16,
    FP32,
    FP32X16,
    INT64,
    LANES,
    UINT8,
    UINT16,
    UINT32,
    UINT32X16,
    VECTOR_BYTES,
    Vector,
    constant,
)

FLOATS = {2: FP16, 4: FP32}
UINT16X16 = ir.VectorType(UINT16, LANES)
INTERLEAVED = [lane + i * LANES for lane in range(LANES) for i in (0, 1)]
ROW = 4 * BLOCK
"""Bytes of a row of 32 sums."""


def _load_bf16(builder, lanes, itemsize, source):
    values = load(builder, source, ir.VectorType(FLOATS[itemsize], lanes))
    return values.to(FP32).to(BF16).bitcast(UINT16)


def _round(builder, lanes, itemsize, source, target):
    store(builder, target, _load_bf16(builder, lanes, itemsize, source))


def _unpool(builder, itemsize, source, index, target, row_bytes, pixel_bytes):
    values = _load_bf16(builder, LANES, itemsize, source)
    position = load(builder, index, ir.VectorType(UINT8, LANES))
    for i, (y, x) in enumerate(product((0, 1), repeat=2)):
        place = builder.add(target, builder.add(builder.mul(row_bytes, INT64(y)), builder.mul(pixel_bytes, INT64(x))))
        store(builder, place, values.where(position.equals(i), 0))


def _pairs(rows: list[Vector]) -> list[Vector]:
    """Two rows of 16 numbers of 16 bits each: 16 pairs, as numbers of 32 bits."""
    return [a.shuffle(INTERLEAVED, b).bitcast(UINT32) for a, b in zip(rows[::2], rows[1::2], strict=True)]


def _transposed(rows: list[Vector]) -> list[Vector]:
    """16 vectors of 16 lanes, transposed by exchanging the off-diagonal blocks of 8, 4, 2 and 1 lanes."""
    rows = list(rows)
    for step in (8, 4, 2, 1):
        upper = [lane if not lane & step else LANES + lane - step for lane in range(LANES)]
        lower = [lane + step if not lane & step else LANES + lane for lane in range(LANES)]
        for i in (i for i in range(LANES) if not i & step):
            a, b = rows[i], rows[i + step]
            rows[i], rows[i + step] = a.shuffle(upper, b), a.shuffle(lower, b)
    return rows


def _interleave(builder, source, row_bytes, target):
    rows = [load(builder, place, UINT16X16) for place in (source, builder.add(source, row_bytes))]
    store(builder, target, _pairs(rows)[0])


def _transpose(builder, source, row_bytes, target, target_bytes):
    places = [builder.add(source, builder.mul(row_bytes, INT64(i))) for i in range(2 * LANES)]
    for i, column in enumerate(_transposed(_pairs([load(builder, place, UINT16X16) for place in places]))):
        store(builder, builder.add(target, builder.mul(target_bytes, INT64(i))), column)


def _pack(builder, source, row_bytes, target):
    rows = []
    for i in range(LANES):
        place = builder.add(source, builder.mul(row_bytes, INT64(i)))
        rows.append(_load_bf16(builder, 2 * LANES, 4, place).bitcast(UINT32))
    for i, column in enumerate(_transposed(rows)):
        store(builder, at(builder, target, VECTOR_BYTES * i), column)


def _pack_rotated(builder, source, row_bytes, target):
    for i in range(LANES):
        places = [builder.add(source, builder.mul(row_bytes, INT64(2 * i + j))) for j in (0, 1)]
        rows = [_load_bf16(builder, LANES, 4, place) for place in places]
        store(builder, at(builder, target, VECTOR_BYTES * i), _pairs(rows)[0])


def _store(builder, lanes, itemsize, source, target, scale):
    values = load(builder, source, ir.VectorType(FP32, lanes))
    if itemsize == 4:
        factor = broadcast(builder, scale)
        values = values * (factor if lanes == LANES else factor.shuffle(range(lanes)))
    store(builder, target, values.to(FLOATS[itemsize]))


def _pool(builder, source, row_bytes, target, index):
    below = builder.add(source, row_bytes)
    places = source, at(builder, source, ROW), below, at(builder, below, ROW)
    largest, *others = (load(builder, place, FP32X16) for place in places)
    position = constant(0, UINT32X16)
    for i, value in enumerate(others, 1):
        larger = builder.or_(value > largest, value.is_nan())  # NaNs propagate, as in torch's pooling
        largest = value.where(larger, largest)
        position = builder.select(larger, constant(i, UINT32X16), position)
    store(builder, target, largest.to(FP16))
    store(builder, index, Vector(builder, position).to(UINT8))


round_to_bf16 = variants(product((LANES, 1), (4, 2)), _round)
"""`round_to_bf16(lanes, itemsize, source, target)`: from float32 or float16."""
unpool = variants([(4,), (2,)], _unpool)
"""`unpool(itemsize, source, index, target, row_bytes, pixel_bytes)`: 16 gradients of maxima, each to its place in the
2x2 window at `target`, zeros to the other three, in bfloat16."""
interleave = simd_function(_interleave)
"""`interleave(source, row_bytes, target)`: two rows of 16 numbers as pairs, a row of a tile of the right matrix."""
transpose = simd_function(_transpose)
"""`transpose(source, row_bytes, target, target_bytes)`: 32 rows of 16 numbers to 16 rows of 32."""
pack = simd_function(_pack)
"""`pack(source, row_bytes, target)`: 16 rows of 32 float32, one for each column, to a tile of the right matrix."""
pack_rotated = simd_function(_pack_rotated)
"""`pack_rotated(source, row_bytes, target)`: the same from 32 rows of 16, one for each row of the right matrix."""
store_sums = variants(product((LANES, 1), (4, 2)), _store)
"""`store_sums(lanes, itemsize, source, target, scale)`: as float32 times the number at `scale`, or as float16."""
pool_sums = simd_function(_pool)
"""`pool_sums(source, row_bytes, target, index)`: the largest of each 2x2 window as float16, for 16 channels.

The byte at `index` is the position, 0 to 3, row by row, of the first of the largest."""


@numba.njit
def stage(image, rows, first, pitch):
    """Rounds an image (h, w, c) into `rows`; its first pixel goes to position `first`."""
    height, width, channels = image.shape
    size, row_bytes = itemsize(image), rows.strides[0]
    lanes = LANES if channels >= LANES else 1
    for y in range(height):
        for x in range(width):
            source = address(image) + size * channels * (y * width + x)
            target = address(rows) + row_bytes * (first + y * pitch + x)
            for c in range(0, channels, lanes):
                start = min(c, channels - lanes)  # the last 16 may overlap those before them
                round_to_bf16(lanes, size, source + size * start, target + 2 * start)


@numba.njit
def stage_unpooled(gradient, pool_indices, rows, first, pitch):
    """Spreads the gradient (h, w, c) of maxima over their 2x2 windows; c is a multiple of 16."""
    height, width, channels = gradient.shape
    size, row_bytes = itemsize(gradient), rows.strides[0]
    for y in range(height):
        for x in range(width):
            pixel = channels * (y * width + x)
            target = address(rows) + row_bytes * (first + 2 * (y * pitch + x))
            for c in range(0, channels, LANES):
                source, index = address(gradient) + size * (pixel + c), address(pool_indices) + pixel + c
                unpool(size, source, index, target + 2 * c, row_bytes * pitch, row_bytes)


@numba.njit
def interleave_all(rows, pairs):
    """`rows` (positions, c) as tiles of the right matrix, `pairs` (c / 16, positions / 2, 32)."""
    row_bytes = rows.strides[0]
    for pair in range(pairs.shape[1]):
        for c in range(len(pairs)):
            source = address(rows) + row_bytes * 2 * pair + 2 * LANES * c
            interleave(source, row_bytes, address(pairs[c, pair]))


@numba.njit
def transpose_all(rows, columns, lead):
    """`rows` (positions, c) as rows of the left matrix, `columns` (c, lead + positions or more)."""
    row_bytes, column_bytes = rows.strides[0], columns.strides[0]
    for position in range(0, len(rows), BLOCK):
        for c in range(0, rows.shape[1], LANES):
            target = address(columns) + column_bytes * c + 2 * (lead + position)
            transpose(address(rows) + row_bytes * position + 2 * c, row_bytes, target, column_bytes)


@numba.njit
def store_plain(sums, y, scale, channel, first, pitch):
    """Stores up to 32 channels of an image y (h, w, k) from `channel` on; its first pixel is at position `first`."""
    height, width, channels = y.shape
    size, last = itemsize(y), min(channels, channel + BLOCK)
    for row in range(height):
        for x in range(width):
            source = address(sums) + ROW * (first + row * pitch + x)
            target = address(y) + size * (channels * (row * width + x) + channel)
            c = 0
            while channel + c < last:
                lanes = LANES if channel + c + LANES <= last else 1
                store_sums(lanes, size, source + 4 * c, target + size * c, address(scale))
                c += lanes


@numba.njit
def store_pooled(sums, y, pool_indices, channel, first, pitch):
    """As `store_plain`, with 2x2 max-pooling: y and pool_indices (h // 2, w // 2, k), k a multiple of 16."""
    height, width, channels = y.shape
    last = min(channels, channel + BLOCK)
    for row in range(height):
        for x in range(width):
            pixel = channels * (row * width + x)
            for c in range(channel, last, LANES):
                source = address(sums) + ROW * (first + 2 * (row * pitch + x)) + 4 * (c - channel)
                target, index = address(y) + 2 * (pixel + c), address(pool_indices) + pixel + c
                pool_sums(source, ROW * pitch, target, index)
