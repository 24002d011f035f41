"""Winograd's minimal filtering F(4x4, 3x3), one tile and a vector of channels at a time, straight-line in registers.

Four by four results of a 3x3 correlation need 6x6 inputs and 144 products. A^T [(G g G^T) * (B^T d B)] A needs 36, and
sums with constants, whose matrices follow from six points (A. Lavin and S. Gray, "Fast Algorithms for Convolutional
Neural Networks", CVPR 2016, arXiv 1509.09308). A tile at the edge of a map may be smaller, of three or two rows or
columns, by five or four of the same points: the filters' values at these are the same, so it joins in their products.

Rounding grows about fivefold against the direct sum: in float32 to some 1e-5 of the results' size, with transforms,
factors and sums of one or two hundred products in float16 to 0.3 to 1.0%.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from llvmlite import ir

from fastcifar.runtime.vectors import (
    ADDRESS,
    BYTES,
    FLOAT,
    FLOATS,
    HALF,
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
)

TILE, POINTS = 4, 6
PRODUCTS = POINTS * POINTS
INNER = (0.0, 0.5, -0.5, 1.5, -1.5)
"""The points but for infinity. Far from 1 their powers grow, close together their differences shrink: of what was tried
these round least, half as much as the usual 0, 1, -1, 2, -2."""


POINTS_OF = {4: (0, 1, 2, 3, 4, 5), 3: (1, 2, 3, 4, 5), 2: (0, 3, 4, 5)}
"""Which of the points a tile has, by its number of results in a row; the last is infinity. Of what could be left out,
this leaves those that round least, half as much as a whole tile."""


def _filtering(results: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """B^T (m + 2, m + 2), A^T (m, m + 2) and G (m + 2, 3) by Cook and Toom: multiply polynomials by their values.

    G is that of all points, of those that there are; what belongs to fewer of them is taken over by B.
    """
    points = np.array([INNER[place] for place in POINTS_OF[results][:-1]])
    missing = np.array([point for point in INNER if point not in points])
    others = [points[points != point] for point in points]
    values = np.stack([*(np.pad(np.poly(other)[::-1], (0, 1)) for other in others), np.poly(points)[::-1]])
    values[:-1] *= np.prod(points[:, None] - missing, axis=1, keepdims=True)
    back = np.concatenate([np.vander(points, results, increasing=True), [[0] * (results - 1) + [1]]]).T
    scales = np.array([np.prod([point - other for other in INNER if other != point]) for point in points])
    filters = np.concatenate([np.vander(points, 3, increasing=True) / scales[:, None], [[0, 0, 1]]])
    return values, back, filters


FILTERINGS = {results: _filtering(results) for results in POINTS_OF}
FILTER = FILTERINGS[TILE][2]


class Axis(NamedTuple):
    """What happens along the rows or the columns of a tile: a matrix, and where its operands and results lie."""

    matrix: np.ndarray
    sources: Sequence[int]
    targets: Sequence[int]

    @property
    def transposed(self) -> "Axis":
        """The same backwards, as a gradient goes."""
        return Axis(self.matrix.T, self.targets, self.sources)


def _input(results: int) -> Axis:
    return Axis(FILTERINGS[results][0], range(results + 2), POINTS_OF[results])


def _output(results: int) -> Axis:
    return Axis(FILTERINGS[results][1], POINTS_OF[results], range(results))


def _cell(builder: ir.IRBuilder, corner: Value, down: Value, right: Value, row: int, column: int) -> Value:
    """The address of a tile's vector."""
    return at(builder, at(builder, corner, builder.mul(down, ADDRESS(row))), builder.mul(right, ADDRESS(column)))


def _transformed(
    builder: ir.IRBuilder, rows: Axis, columns: Axis, vector: ir.VectorType, source: Value, down: Value, right: Value
) -> list[list[Vec]]:
    """rows.matrix @ tile @ columns.matrix^T, rows of vectors, of the tile at `source`."""
    inner = []
    for x in columns.sources:
        column = [load(builder, _cell(builder, source, down, right, y, x), vector) for y in rows.sources]
        inner.append(combine(rows.matrix, column))
    return [combine(columns.matrix, [column[y] for column in inner]) for y in range(len(rows.matrix))]


def _transform(builder, rows, columns, vector, source, down, right, target, target_down, target_right):
    tile = _transformed(builder, rows, columns, vector, source, down, right)
    for y, row in zip(rows.targets, tile, strict=True):
        for x, vec in zip(columns.targets, row, strict=True):
            store(builder, _cell(builder, target, target_down, target_right, y, x), vec)


def _of_each_size(smaller: Sequence[int], generate: Callable[..., None]) -> Callable[..., None]:
    """An operation for compiled code, `operation(rows, columns, *arguments)`, of tiles with so many results.

    Both are four or one of `smaller`, and in one direction the same as in the other where neither is four.
    `generate(builder, rows, columns, *arguments)` is called for each two of them.
    """
    sizes = sorted({(rows, columns) for edge in smaller for rows in (TILE, edge) for columns in (TILE, edge)})

    def choose(builder, rows, columns, *arguments):
        for size in sizes:
            equal = [builder.icmp_signed("==", v, ADDRESS(n)) for v, n in zip((rows, columns), size, strict=True)]
            with builder.if_then(builder.and_(*equal)):
                generate(builder, *size, *arguments)

    return operation(choose)


def input_transform(vector: ir.VectorType) -> Callable[..., None]:
    """An operation for compiled code: what a tile's results depend on to the factors of its products.

    `transform(rows, columns, source, source_down, source_right, target, target_down, target_right)` for a tile of so
    many results; the next row and the next column lie so many bytes further on.
    """
    return _of_each_size(
        (3, 2),
        lambda builder, rows, columns, *places: _transform(builder, _input(rows), _input(columns), vector, *places),
    )


def gradient_transform(vector: ir.VectorType) -> Callable[..., None]:
    """The same for the gradient of a tile's results, to those of its products: the transpose of the way back."""
    return _of_each_size(
        (3, 2),
        lambda builder, rows, columns, *places: _transform(
            builder, _output(rows).transposed, _output(columns).transposed, vector, *places
        ),
    )


OF_FILTERS = Axis(FILTER, range(3), range(POINTS))


def _filter(builder, *places):
    _transform(builder, OF_FILTERS, OF_FILTERS, FLOATS, *places)


def _two_filters(builder, source, apart, down, right, target, target_down, target_right):
    places = (source, at(builder, source, apart))
    one, two = (_transformed(builder, OF_FILTERS, OF_FILTERS, FLOATS, place, down, right) for place in places)
    by_turns = [lane + half * LANES for lane in range(LANES) for half in (0, 1)]
    for y, x in product(range(POINTS), repeat=2):
        both = one[y][x].of(HALF).picked(by_turns, two[y][x].of(HALF))
        store(builder, _cell(builder, target, target_down, target_right, y, x), both)


filter_transform: Callable[..., None] = operation(_filter)
"""3x3 weights to the 6x6 values of a filter, sixteen outputs at a time, as float32:
`transform(source, source_down, source_right, target, target_down, target_right)`."""
two_filters_transform: Callable[..., None] = operation(_two_filters)
"""The same of two inputs to 32 float16, by turns of the one and of the other, whose weights lie `apart` bytes further
on: `transform(source, apart, source_down, source_right, target, target_down, target_right)`."""


def _filter_gradient(builder, *places):
    _transform(builder, OF_FILTERS.transposed, OF_FILTERS.transposed, FLOATS, *places)


filter_gradient_transform: Callable[..., None] = operation(_filter_gradient)
"""6x6 gradients of a filter's values to 3x3 of its weights, as `filter_transform`."""


def _within(
    builder: ir.IRBuilder, tile: list[list[Vec]], rows: Value, columns: Value
) -> Iterator[tuple[int, int, Vec]]:
    """What of a tile lies in the first `rows` and `columns`: what is done with each is done on that condition."""
    for y, row in enumerate(tile):
        with builder.if_then(builder.icmp_signed(">", rows, ADDRESS(y)), likely=True):
            for x, vec in enumerate(row):
                with builder.if_then(builder.icmp_signed(">", columns, ADDRESS(x)), likely=True):
                    yield y, x, vec


def plain_output(vector: ir.VectorType) -> Callable[..., None]:
    """An operation for compiled code: a tile's products back to its results, of those what lies within a map.

    `output(rows, columns, source, source_down, source_right, target, target_down, target_right, inside, beside)`: so
    many rows and columns lie within.
    """

    def generate(builder, rows, columns, source, down, right, target, target_down, target_right, inside, beside):
        tile = _transformed(builder, _output(rows), _output(columns), vector, source, down, right)
        for y, x, vec in _within(builder, tile, inside, beside):
            store(builder, _cell(builder, target, target_down, target_right, y, x), vec)

    return _of_each_size((3,), generate)


def scaled_output(vector: ir.VectorType) -> Callable[..., None]:
    """The same with one more argument: the results, as float32, times the number at address `factor`."""

    def generate(builder, rows, columns, source, down, right, target, to_down, to_right, inside, beside, factor):
        tile = _transformed(builder, _output(rows), _output(columns), vector, source, down, right)
        scale = broadcast(builder, factor)
        for y, x, vec in _within(builder, tile, inside, beside):
            place = _cell(builder, target, to_down, to_right, y, x)
            for part, sixteen in enumerate(vec.sixteens()):
                store(builder, at(builder, place, part * BYTES), sixteen.of(FLOAT) * scale)

    return _of_each_size((3,), generate)


def pooled_output(vector: ir.VectorType) -> Callable[..., None]:
    """An operation for compiled code: a tile's products to the maxima of each 2x2 of its results.

    `output(rows, columns, source, down, right, target, down, right, chosen, down, right)`, rows and columns even:
    `chosen` gets a byte for each maximum: 0 to 3, row by row, for where the first of the largest was.
    """

    def generate(builder, rows, columns, source, down, right, target, to_down, to_right, chosen, c_down, c_right):
        tile = _transformed(builder, _output(rows), _output(columns), vector, source, down, right)
        for y in range(0, rows, 2):
            for x in range(0, columns, 2):
                best, which = tile[y][x], codes(0, vector.count)
                for code, vec in enumerate((tile[y][x + 1], tile[y + 1][x], tile[y + 1][x + 1]), 1):
                    # so that a NaN goes through, as in torch's pooling
                    larger = builder.or_(vec.above(best), builder.fcmp_unordered("uno", vec.value, vec.value))
                    best, which = vec.where(larger, best), builder.select(larger, codes(code, vector.count), which)
                store(builder, _cell(builder, target, to_down, to_right, y // 2, x // 2), best)
                store_codes(builder, _cell(builder, chosen, c_down, c_right, y // 2, x // 2), which)

    return _of_each_size((2,), generate)


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
