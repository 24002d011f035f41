"""Winograd's minimal filtering F(4x4, 3x3), one tile and sixteen channels at a time, straight-line in registers.

Four by four results of a 3x3 correlation need 6x6 inputs and 144 products. A^T [(G g G^T) * (B^T d B)] A needs 36, and
sums with constants, whose matrices follow here: the polynomial points 0, 1, -1, 2, -2 and infinity (A. Lavin and
S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, arXiv 1509.09308). Rounding grows about tenfold
against the direct sum: some 1e-5 of the results' size in float32.
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
    codes,
    combine,
    load,
    load_codes,
    operation,
    store,
    store_codes,
)

TILE, POINTS = 4, 6
PRODUCTS = POINTS * POINTS
INPUT = np.array(  # B^T
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.float64,
)
OUTPUT = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], np.float64
)  # A^T
FILTER = np.array(  # G
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)


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


def _store_tile(builder: ir.IRBuilder, tile: list[list[Vec]], target: Value, down: Value, right: Value) -> None:
    for y, row in enumerate(tile):
        for x, vec in enumerate(row):
            store(builder, _cell(builder, target, down, right, y, x), vec)


def tile_transform(matrix: np.ndarray) -> Callable[..., None]:
    """An operation for compiled code: `matrix` (m, n) on both sides of a tile.

    `transform(source, source_down, source_right, target, target_down, target_right)`: (n, n) vectors to (m, m); the
    next row and the next column lie so many bytes further on.
    """

    def generate(builder, source, source_down, source_right, target, target_down, target_right):
        tile = _transformed(builder, matrix, source, source_down, source_right)
        _store_tile(builder, tile, target, target_down, target_right)

    return operation(generate)


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
output_transform = tile_transform(OUTPUT)
gradient_transform = tile_transform(OUTPUT.T)
"""The transpose of the output's: 4x4 gradients of results to 6x6 gradients of products."""
filter_transform = tile_transform(FILTER)
filter_gradient_transform = tile_transform(FILTER.T)
"""6x6 gradients of a filter's values to 3x3 of its weights."""
