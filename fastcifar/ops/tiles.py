"""Winograd's minimal filtering F(4x4, 3x3), one tile and sixteen channels at a time, straight-line in registers.

Four by four results of a 3x3 correlation need 6x6 inputs and 144 products. A^T [(G g G^T) * (B^T d B)] A needs 36, and
sums with constants, whose matrices follow from six points (A. Lavin and S. Gray, "Fast Algorithms for Convolutional
Neural Networks", CVPR 2016, arXiv 1509.09308). Rounding grows about fivefold against the direct sum: in float32 to some
1e-5 of the results' size, with float16 factors and sums of a hundred products in float16 to 0.4 to 1.0%.
"""

from collections.abc import Callable

import numpy as np
from llvmlite import ir

from fastcifar.ops.vectors import (
    ADDRESS,
    CODES,
    LANES,
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
    store_half,
)

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
LIMIT = 64.0
"""Of gradients of products in float16, for those of filters: their products with values up to 1,000 stay finite."""


def _cell(builder: ir.IRBuilder, corner: Value, down: Value, right: Value, row: int, column: int) -> Value:
    """The address of a tile's vector."""
    return at(builder, at(builder, corner, builder.mul(down, ADDRESS(row))), builder.mul(right, ADDRESS(column)))


def _transformed(
    builder: ir.IRBuilder, matrix: np.ndarray, source: Value, down: Value, right: Value
) -> list[list[Vec]]:
    """matrix @ tile @ matrix^T, rows of vectors, of the tile at `source`."""
    columns = []
    for x in range(matrix.shape[1]):
        column = [load(builder, _cell(builder, source, down, right, y, x)) for y in range(matrix.shape[1])]
        columns.append(combine(matrix, column))
    return [combine(matrix, [column[y] for column in columns]) for y in range(len(matrix))]


def tile_transform(matrix: np.ndarray, *, half: bool = False, limit: float | None = None) -> Callable[..., None]:
    """An operation for compiled code: `matrix` (m, n) on both sides of a tile.

    `transform(source, source_down, source_right, target, target_down, target_right)`: (n, n) vectors to (m, m); the
    next row and the next column lie so many bytes further on. With `half` the results are float16, none beyond `limit`.
    """

    def generate(builder, source, source_down, source_right, target, target_down, target_right):
        tile = _transformed(builder, matrix, source, source_down, source_right)
        for y, row in enumerate(tile):
            for x, vec in enumerate(row):
                place = _cell(builder, target, target_down, target_right, y, x)
                if half:
                    store_half(builder, place, vec if limit is None else vec.within(limit))
                else:
                    store(builder, place, vec)

    return operation(generate)


def _scaled_output(builder, source, source_down, source_right, target, target_down, target_right, factor):
    tile, scale = _transformed(builder, OUTPUT, source, source_down, source_right), broadcast(builder, factor)
    for y, row in enumerate(tile):
        for x, vec in enumerate(row):
            store(builder, _cell(builder, target, target_down, target_right, y, x), vec * scale)


def _pooled(
    builder, source, source_down, source_right, target, target_down, target_right, chosen, chosen_down, chosen_right
):
    tile = _transformed(builder, OUTPUT, source, source_down, source_right)
    for y in range(0, TILE, 2):
        for x in range(0, TILE, 2):
            best, which = tile[y][x], codes(0)
            for code, vec in enumerate((tile[y][x + 1], tile[y + 1][x], tile[y + 1][x + 1]), 1):
                # so that a NaN goes through, as in torch's pooling
                larger = builder.or_(vec.above(best), builder.fcmp_unordered("uno", vec.value, vec.value))
                best, which = vec.where(larger, best), builder.select(larger, codes(code), which)
            store(builder, _cell(builder, target, target_down, target_right, y // 2, x // 2), best)
            store_codes(builder, _cell(builder, chosen, chosen_down, chosen_right, y // 2, x // 2), which)


pooled_output: Callable[..., None] = operation(_pooled)
"""`pooled_output(source, down, right, target, down, right, chosen, down, right)`: 6x6 products to 2x2 maxima of 2x2.

`chosen` gets a byte for each: 0 to 3, row by row, for where the first of the largest was.
"""


def _unpool(builder, source, chosen, target, down, right):
    values, which = load(builder, source), load_codes(builder, chosen)
    for code in range(4):
        bits = builder.icmp_unsigned("==", which, ir.Constant(CODES, [code] * LANES))
        store(builder, _cell(builder, target, down, right, code // 2, code % 2), values.where(bits, 0.0))


unpool: Callable[..., None] = operation(_unpool)
"""`unpool(source, chosen, target, down, right)`: sixteen gradients of maxima to the four places each may come from."""

input_transform = tile_transform(INPUT)
half_input_transform = tile_transform(INPUT, half=True)
scaled_output: Callable[..., None] = operation(_scaled_output)
"""`scaled_output(source, down, right, target, down, right, factor)`: 6x6 products to 4x4 results, times the number at
address `factor`."""
gradient_transform = tile_transform(OUTPUT.T)
"""The transpose of the output's: 4x4 gradients of results to 6x6 gradients of products."""
half_gradient_transform = tile_transform(OUTPUT.T, half=True, limit=LIMIT)
filter_transform = tile_transform(FILTER)
half_filter_transform = tile_transform(FILTER, half=True)
filter_gradient_transform = tile_transform(FILTER.T)
"""6x6 gradients of a filter's values to 3x3 of its weights."""
