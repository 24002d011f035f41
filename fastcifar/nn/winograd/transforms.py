"""Tile transforms of Winograd's F(4x4, 3x3), one tile and one vector of channels at a time, in registers.

The 4x4 outputs of a 3x3 correlation depend on 6x6 inputs and cost 144 products. Y = A^T [(G g G^T) * (B^T d B)] A needs
36, and sums with constants (`matrices.py`). Over many tiles, channels and filters, each of the 36 products is a GEMM.

Rounding errors are three to eight times those of the direct sum. Relative to the root mean square of the outputs of
cpu90's layers, theirs is about 1e-6 in float32, and 0.4 to 1.0% with transforms, products and sums in float16.

`rows` and `columns` are the outputs per side of a tile: 4, or fewer at the edge of the feature map.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from llvmlite import ir

from fastcifar.nn.winograd.matrices import ALPHA, MATRICES, OUTPUT_TILE, POINTS_OF_TILE, multiply
from fastcifar.runtime.simd.function import simd_function, variants
from fastcifar.runtime.simd.memory import Strided2D, at, broadcast, cell, load, store
from fastcifar.runtime.simd.vector import (
    FP16,
    FP32,
    FP32X16,
    INT64,
    LANES,
    UINT8,
    VECTOR_BYTES,
    Value,
    Vector,
    constant,
)


class Axis(NamedTuple):
    """A transform along one axis of a tile: matrix (m, n), the positions of its n inputs and of its m outputs."""

    matrix: np.ndarray
    sources: Sequence[int]
    targets: Sequence[int]

    @property
    def transposed(self) -> "Axis":
        """The transform of gradients."""
        return Axis(self.matrix.T, self.targets, self.sources)


INPUT = {m: Axis(MATRICES[m][0], range(m + 2), POINTS_OF_TILE[m]) for m in MATRICES}
OUTPUT = {m: Axis(MATRICES[m][1], POINTS_OF_TILE[m], range(m)) for m in MATRICES}
FILTER = Axis(MATRICES[OUTPUT_TILE][2], range(3), range(ALPHA))


def _transform(
    builder: ir.IRBuilder, rows: Axis, columns: Axis, vector: ir.VectorType, source: Strided2D
) -> list[list[Vector]]:
    """rows.matrix @ tile @ columns.matrix^T as rows of vectors."""
    inner = []
    for x in columns.sources:
        column = [load(builder, cell(builder, source, y, x), vector) for y in rows.sources]
        inner.append(multiply(rows.matrix, column))
    return [multiply(columns.matrix, [column[y] for column in inner]) for y in range(len(rows.matrix))]


def _transform_to(builder, rows, columns, vector, source, target):
    tile = _transform(builder, rows, columns, vector, source)
    for y, row in zip(rows.targets, tile, strict=True):
        for x, value in zip(columns.targets, row, strict=True):
            store(builder, cell(builder, target, y, x), value)


def _tile_sizes(*edges: int) -> list[tuple[int, ...]]:
    """(rows, columns) of full tiles, and of those with `edge` outputs in one or both directions."""
    return sorted({size for edge in edges for size in product((OUTPUT_TILE, edge), repeat=2)})


def _vector_type(itemsize: int, lanes: int) -> ir.VectorType:
    return ir.VectorType(FP32 if itemsize == 4 else FP16, lanes)


def _input(builder, itemsize, rows, columns, source, target):
    vector = _vector_type(itemsize, VECTOR_BYTES // itemsize)
    _transform_to(builder, INPUT[rows], INPUT[columns], vector, source, target)


def _output_gradient(builder, itemsize, rows, columns, source, target):
    vector = _vector_type(itemsize, VECTOR_BYTES // itemsize)
    _transform_to(builder, OUTPUT[rows].transposed, OUTPUT[columns].transposed, vector, source, target)


_CASES = [(itemsize, *size) for itemsize in (4, 2) for size in _tile_sizes(3, 2)]
input_transform = variants(_CASES, _input)
"""V = B^T d B of 64 bytes of channels: `transform(itemsize, rows, columns, source, target)`, both `Strided2D`."""
output_gradient_transform = variants(_CASES, _output_gradient)
"""The gradient of M = U * V from that of Y, A dY A^T; arguments as `input_transform`."""


def _filter(builder, source, target):
    _transform_to(builder, FILTER, FILTER, FP32X16, source, target)


def _filter_pair_fp16(builder, source, distance, target):
    second = source._replace(address=at(builder, source.address, distance))
    one, two = (_transform(builder, FILTER, FILTER, FP32X16, grid) for grid in (source, second))
    interleaved = [lane + i * LANES for lane in range(LANES) for i in (0, 1)]
    for y, x in product(range(ALPHA), repeat=2):
        pair = one[y][x].to(FP16).shuffle(interleaved, two[y][x].to(FP16))
        store(builder, cell(builder, target, y, x), pair)


def _filter_gradient(builder, source, target):
    _transform_to(builder, FILTER.transposed, FILTER.transposed, FP32X16, source, target)


filter_transform = simd_function(_filter)
"""U = G g G^T for 16 output channels, as float32: `transform(source, target)`."""
filter_pair_transform_fp16 = simd_function(_filter_pair_fp16)
"""The same for two input channels, interleaved, as 32 float16: `transform(source, distance, target)`, where the weights
of the second input lie `distance` bytes after those of the first."""
filter_gradient_transform = simd_function(_filter_gradient)
"""G^T dU G, from 6x6 to 3x3: `transform(source, target)`."""


def _inside(
    builder: ir.IRBuilder, tile: list[list[Vector]], height: Value, width: Value
) -> Iterator[tuple[int, int, Vector]]:
    """Yields (y, x, vector) of a tile; what the caller generates for each runs only if y < height and x < width."""
    for y, row in enumerate(tile):
        with builder.if_then(builder.icmp_signed(">", height, INT64(y)), likely=True):
            for x, value in enumerate(row):
                with builder.if_then(builder.icmp_signed(">", width, INT64(x)), likely=True):
                    yield y, x, value


def _output(builder, itemsize, lanes, y_itemsize, rows, columns, source, target, height, width, scale):
    tile = _transform(builder, OUTPUT[rows], OUTPUT[columns], _vector_type(itemsize, lanes), source)
    factor = broadcast(builder, scale) if y_itemsize == 4 else None
    for y, x, value in _inside(builder, tile, height, width):
        place = cell(builder, target, y, x)
        if factor is None:
            store(builder, place, value)
        else:
            for i, part in enumerate(value.split()):
                store(builder, at(builder, place, i * VECTOR_BYTES), part.to(FP32) * factor)


def _pooled_output(builder, itemsize, lanes, rows, columns, source, target, pool_indices):
    tile = _transform(builder, OUTPUT[rows], OUTPUT[columns], _vector_type(itemsize, lanes), source)
    positions = [Vector(builder, constant(i, ir.VectorType(UINT8, lanes))) for i in range(4)]
    for y, x in product(range(0, rows, 2), range(0, columns, 2)):
        largest, index = tile[y][x], positions[0]
        for i, value in enumerate((tile[y][x + 1], tile[y + 1][x], tile[y + 1][x + 1]), 1):
            larger = builder.or_(value > largest, value.is_nan())  # NaNs propagate, as in torch's pooling
            largest, index = value.where(larger, largest), positions[i].where(larger, index)
        store(builder, cell(builder, target, y // 2, x // 2), largest)
        store(builder, cell(builder, pool_indices, y // 2, x // 2), index)


def _unpool(builder, itemsize, lanes, source, pool_indices, target):
    values = load(builder, source, _vector_type(itemsize, lanes))
    index = load(builder, pool_indices, ir.VectorType(UINT8, lanes))
    for i, (y, x) in enumerate(product((0, 1), repeat=2)):
        store(builder, cell(builder, target, y, x), values.where(index.equals(i), 0.0))


def _copy(builder, lanes, itemsize, target_itemsize, source, target):
    vector = load(builder, source, _vector_type(itemsize, lanes))
    store(builder, target, vector.to(_vector_type(target_itemsize, lanes).element))


_VECTORS = [(4, 16), (2, 16), (2, 32)]  # (itemsize, lanes)
_OUTPUTS = [(4, 16, 4), (2, 16, 4), (2, 16, 2), (2, 32, 4), (2, 32, 2)]  # (itemsize, lanes, y_itemsize)
output_transform = variants([(*case, *size) for case in _OUTPUTS for size in _tile_sizes(3)], _output)
"""Y = A^T M A: `transform(itemsize, lanes, y_itemsize, rows, columns, source, target, height, width, scale)`.

Stores the first height x width outputs, as float16 or as float32 times the number at address `scale`."""
pooled_output_transform = variants([(*vector, *size) for vector in _VECTORS for size in _tile_sizes(2)], _pooled_output)
"""Y = A^T M A, then 2x2 max-pooling: `transform(itemsize, lanes, rows, columns, source, target, pool_indices)`.

Rows and columns are even. `pool_indices` (a `Strided2D`) gets a byte for each maximum: the position 0 to 3, row by row,
of the first of the largest values in its window."""
unpool = variants(_VECTORS, _unpool)
"""The gradient of max-pooling: `unpool(itemsize, lanes, source, pool_indices, target)`; target is a `Strided2D`.

The gradient of a maximum goes to its position in the 2x2 window; the other three get zeros."""
copy = variants([(lanes, *sizes) for lanes in (LANES, 1) for sizes in ((4, 4), (4, 2), (2, 2))], _copy)
"""`copy(lanes, itemsize, target_itemsize, source, target)`: float32 or float16, converted."""
