"""Winograd's minimal filtering F(4x4, 3x3), one tile and sixteen channels at a time, straight-line in registers.

Four by four results of a 3x3 correlation need 6x6 inputs and 144 products. A^T [(G g G^T) * (B^T d B)] A needs 36, and
sums with constants, whose matrices follow from six points (A. Lavin and S. Gray, "Fast Algorithms for Convolutional
Neural Networks", CVPR 2016, arXiv 1509.09308). Rounding grows about fivefold against the direct sum: in float32 to some
1e-5 of the results' size, with float16 factors and sums of a hundred products in float16 to 0.4 to 1.0%.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
from llvmlite import ir

from fastcifar.ops.vectors import (
    ADDRESS,
    BYTES,
    FLOAT,
    FLOATS,
    HALF,
    Value,
    Vec,
    at,
    broadcast,
    codes,
    combine,
    load,
    load_codes,
    operation,
    store,
    store_codes,
)

Content = TypeVar("Content")

TILE, POINTS = 4, 6
PRODUCTS = POINTS * POINTS
INNER = (0.0, 0.5, -0.5, 1.5, -1.5)
"""The points but for infinity. Far from 1 their powers grow, close together their differences shrink: of what was tried
these round least, half as much as the usual 0, 1, -1, 2, -2."""


def _minimal_filtering() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """B^T (6, 6), A^T (4, 6) and G (6, 3) by Cook and Toom: multiply polynomials by their values at the points."""
    points = np.array(INNER)
    others = [points[points != point] for point in points]
    values = np.stack([*(np.pad(np.poly(other)[::-1], (0, 1)) for other in others), np.poly(points)[::-1]])
    back = np.concatenate([np.vander(points, TILE, increasing=True), [[0, 0, 0, 1]]]).T
    scales = np.array([np.prod(point - other) for point, other in zip(points, others, strict=True)])
    filters = np.concatenate([np.vander(points, 3, increasing=True) / scales[:, None], [[0, 0, 1]]])
    return values, back, filters


INPUT, OUTPUT, FILTER = _minimal_filtering()

def _cell(builder: ir.IRBuilder, corner: Value, down: Value, right: Value, row: int, column: int) -> Value:
    """The address of a tile's vector."""
    return at(builder, at(builder, corner, builder.mul(down, ADDRESS(row))), builder.mul(right, ADDRESS(column)))


def _transformed(
    builder: ir.IRBuilder, matrix: np.ndarray, vector: ir.VectorType, source: Value, down: Value, right: Value
) -> list[list[Vec]]:
    """matrix @ tile @ matrix^T, rows of vectors, of the tile at `source`."""
    columns = []
    for x in range(matrix.shape[1]):
        column = [load(builder, _cell(builder, source, down, right, y, x), vector) for y in range(matrix.shape[1])]
        columns.append(combine(matrix, column))
    return [combine(matrix, [column[y] for column in columns]) for y in range(len(matrix))]


def _within(
    builder: ir.IRBuilder, tile: list[list[Content]], rows: Value, columns: Value
) -> Iterator[tuple[int, int, Content]]:
    """What of a tile lies in the first `rows` and `columns`: what is done with each is done on that condition."""
    for y, row in enumerate(tile):
        with builder.if_then(builder.icmp_signed(">", rows, ADDRESS(y)), likely=True):
            for x, vec in enumerate(row):
                with builder.if_then(builder.icmp_signed(">", columns, ADDRESS(x)), likely=True):
                    yield y, x, vec


def tile_transform(
    matrix: np.ndarray, vector: ir.VectorType = FLOATS, to: ir.Type | None = None
) -> Callable[..., None]:
    """An operation for compiled code: `matrix` (m, n) on both sides of a tile.

    `transform(source, source_down, source_right, target, target_down, target_right)`: (n, n) vectors to (m, m), left
    as numbers of type `to`; the next row and the next column lie so many bytes further on.
    """

    def generate(builder, source, source_down, source_right, target, target_down, target_right):
        tile = _transformed(builder, matrix, vector, source, source_down, source_right)
        for y, row in enumerate(tile):
            for x, vec in enumerate(row):
                place = _cell(builder, target, target_down, target_right, y, x)
                store(builder, place, vec.of(to or vector.element))

    return operation(generate)


def plain_output(vector: ir.VectorType) -> Callable[..., None]:
    """An operation for compiled code: 6x6 products back to what of 4x4 results lies in the first rows and columns.

    `output(source, source_down, source_right, target, target_down, target_right, rows, columns)`
    """

    def generate(builder, source, source_down, source_right, target, target_down, target_right, rows, columns):
        tile = _transformed(builder, OUTPUT, vector, source, source_down, source_right)
        for y, x, vec in _within(builder, tile, rows, columns):
            store(builder, _cell(builder, target, target_down, target_right, y, x), vec)

    return operation(generate)


def scaled_output(vector: ir.VectorType) -> Callable[..., None]:
    """The same with one more argument: the results, as float32, times the number at address `factor`."""

    def generate(builder, source, source_down, source_right, target, target_down, target_right, rows, columns, factor):
        tile = _transformed(builder, OUTPUT, vector, source, source_down, source_right)
        scale = broadcast(builder, factor)
        for y, x, vec in _within(builder, tile, rows, columns):
            place = _cell(builder, target, target_down, target_right, y, x)
            for part, sixteen in enumerate(vec.sixteens()):
                store(builder, at(builder, place, part * BYTES), sixteen.of(FLOAT) * scale)

    return operation(generate)


def pooled_output(vector: ir.VectorType) -> Callable[..., None]:
    """An operation for compiled code: 6x6 products to what of 2x2 maxima of 2x2 lies in the first rows and columns.

    `output(source, down, right, target, down, right, chosen, down, right, rows, columns)`: `chosen` gets a byte for
    each: 0 to 3, row by row, for where the first of the largest was.
    """

    def largest(builder, tile, y, x):
        best, which = tile[y][x], codes(0, vector.count)
        for code, vec in enumerate((tile[y][x + 1], tile[y + 1][x], tile[y + 1][x + 1]), 1):
            # so that a NaN goes through, as in torch's pooling
            larger = builder.or_(vec.above(best), builder.fcmp_unordered("uno", vec.value, vec.value))
            best, which = vec.where(larger, best), builder.select(larger, codes(code, vector.count), which)
        return best, which

    def generate(builder, source, down, right, target, to_down, to_right, chosen, c_down, c_right, rows, columns):
        tile = _transformed(builder, OUTPUT, vector, source, down, right)
        maxima = [[largest(builder, tile, y, x) for x in range(0, TILE, 2)] for y in range(0, TILE, 2)]
        for y, x, (best, which) in _within(builder, maxima, rows, columns):
            store(builder, _cell(builder, target, to_down, to_right, y, x), best)
            store_codes(builder, _cell(builder, chosen, c_down, c_right, y, x), which)

    return operation(generate)


def unpool(vector: ir.VectorType) -> Callable[..., None]:
    """An operation for compiled code, `unpool(source, chosen, target, down, right)`.

    Gradients of maxima go to that of the four places where each may come from, zeros to the others.
    """

    def generate(builder, source, chosen, target, down, right):
        values, which = load(builder, source, vector), load_codes(builder, chosen, vector.count)
        for code in range(4):
            bits = builder.icmp_unsigned("==", which, codes(code, vector.count))
            store(builder, _cell(builder, target, down, right, code // 2, code % 2), values.where(bits, 0.0))

    return operation(generate)


filter_transform, half_filter_transform = tile_transform(FILTER), tile_transform(FILTER, to=HALF)
filter_gradient_transform = tile_transform(FILTER.T)
"""6x6 gradients of a filter's values to 3x3 of its weights."""
