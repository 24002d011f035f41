"""Matrix products with 32 columns: micro-kernels that keep their results in registers, and the loops over rows."""

from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Any

import numba
from llvmlite import ir

from fastcifar.runtime.simd.function import variants
from fastcifar.runtime.simd.memory import Strided2D, at, broadcast, broadcast_fp16_pair, cell, load, store
from fastcifar.runtime.simd.vector import (
    FP16X32,
    FP32,
    FP32X16,
    INT64,
    LANES,
    VECTOR_BYTES,
    Value,
    Vector,
    constant,
)

BLOCK = 2 * LANES
"""Columns of a GEMM: output channels are processed in blocks of 32."""
FP32_ROW, FP16_ROW = 4 * BLOCK, 2 * BLOCK
"""Bytes of a row of 32 numbers."""
ROW_STEP = 4
"""Rows are computed in multiples of this; up to 3 rows after the last one are read and written."""
FILTER_GRAD_ROWS = 2 * ROW_STEP
"""Rows of a filter gradient are computed in multiples of this."""
FP16_TERMS = 96
"""The most products summed in float16 before the sum is added to others."""


def _sum_over(
    builder: ir.IRBuilder,
    steps: Value,
    pointers: Iterable[tuple[Value, Value | int]],
    sums: Mapping[Any, Value],
    add: Callable[..., dict[Any, Vector]],
) -> dict[Any, Vector]:
    """Generates a loop of `steps` >= 1 and returns the final sums.

    `pointers` are pairs of an address and its stride in bytes; `sums` the initial values by key. `add(addresses, sums)`
    generates one step and returns the new sums.
    """
    strides = [INT64(1), *(INT64(by) if isinstance(by, int) else by for _, by in pointers)]
    initial = [INT64(0), *(address for address, _ in pointers), *sums.values()]
    before, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
    builder.branch(loop)
    builder.position_at_end(loop)
    phis = [builder.phi(value.type) for value in initial]
    current = dict(zip(sums, phis[len(strides) :], strict=True))
    new = add(phis[1 : len(strides)], {key: Vector(builder, value) for key, value in current.items()})
    advanced = [builder.add(phi, by) for phi, by in zip(phis, strides, strict=False)]
    for phi, first, following in zip(phis, initial, [*advanced, *(new[key].value for key in sums)], strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", advanced[0], steps), loop, after)
    builder.position_at_end(after)
    return new


def _fp32_product(builder, avx512, rows, accumulate, a, b, c, steps):
    """24 sums, 2 vectors of b and one of a use most of the 32 registers of 512 bits; 12, 2 and 1 those of 256 bits."""
    part_rows, vectors = (rows, 2) if avx512 else (min(rows, 6), 1)
    for first_vector in range(0, 2, vectors):
        for first_row in range(0, rows, part_rows):
            offset = VECTOR_BYTES * first_vector
            a_part = a._replace(address=cell(builder, a, first_row, 0))
            c_part = at(builder, c, FP32_ROW * first_row + offset)
            _fp32_microkernel(builder, (part_rows, vectors), accumulate, a_part, at(builder, b, offset), c_part, steps)


def _fp32_microkernel(builder, shape, accumulate, a, b, c, steps):
    """Results in registers: `shape` is (rows, vectors of 16 columns)."""
    rows, vectors = shape
    targets = {(r, v): at(builder, c, FP32_ROW * r + VECTOR_BYTES * v) for r in range(rows) for v in range(vectors)}
    initial = {
        key: load(builder, target).value if accumulate else constant(0, FP32X16) for key, target in targets.items()
    }

    def add(addresses, sums):
        a_k = a._replace(address=addresses[0])
        b_k = [load(builder, at(builder, addresses[1], VECTOR_BYTES * v)) for v in range(vectors)]
        new = {}
        for r in range(rows):
            factor = broadcast(builder, cell(builder, a_k, r, 0))
            for v in range(vectors):
                new[r, v] = sums[r, v] + factor * b_k[v]
        return new

    sums = _sum_over(builder, steps, ((a.address, a.column_stride), (b, FP32_ROW)), initial, add)
    for key, target in targets.items():
        store(builder, target, sums[key])


def _fp16_sums(
    builder: ir.IRBuilder, rows: int, a: Strided2D, b: Value, b_stride: int, steps: Value, *, outer: bool
) -> list[tuple[Vector, Vector]]:
    """For each row the sums over k < steps of a[r, k, 0] * b[k] and a[r, k, 1] * b[k], 32 float16 each.

    a is a `Strided2D` of pairs of float16. Its pair is broadcast as one 32-bit number, so each of two vectors holds the
    products of both numbers with 16 columns. b[k] is (32,) with `outer`; else (32, 2), a column for each of the pair.
    """

    def add(addresses, sums):
        if outer:
            row = load(builder, addresses[1], FP16X32)
            b_k = [row.shuffle([lane // 2 + v * LANES for lane in range(BLOCK)]) for v in (0, 1)]
        else:
            b_k = [load(builder, at(builder, addresses[1], VECTOR_BYTES * v), FP16X32) for v in (0, 1)]
        a_k = a._replace(address=addresses[0])
        new = {}
        for r in range(rows):
            pair = broadcast_fp16_pair(builder, cell(builder, a_k, r, 0))
            for v in (0, 1):
                new[r, v] = sums[r, v] + pair * b_k[v]
        return new

    zeros = {(r, v): constant(0, FP16X32) for r in range(rows) for v in (0, 1)}
    sums = _sum_over(builder, steps, ((a.address, a.column_stride), (b, b_stride)), zeros, add)
    even, odd = range(0, 2 * BLOCK, 2), range(1, 2 * BLOCK, 2)
    return [(sums[r, 0].shuffle(even, sums[r, 1]), sums[r, 0].shuffle(odd, sums[r, 1])) for r in range(rows)]


def _fp16_inner(builder, rows, accumulate, a, b, c, steps):
    for r, (first, second) in enumerate(_fp16_sums(builder, rows, a, b, 2 * FP16_ROW, steps, outer=False)):
        target, total = at(builder, c, FP16_ROW * r), first + second
        store(builder, target, load(builder, target, FP16X32) + total if accumulate else total)


def _fp16_outer(builder, rows, a, b, c, steps):
    for r, pair in enumerate(_fp16_sums(builder, rows // 2, a, b, FP16_ROW, steps, outer=True)):
        for i, vector in enumerate(pair):
            for v, part in enumerate(vector.split()):
                target = at(builder, c, FP32_ROW * (2 * r + i) + VECTOR_BYTES * v)
                store(builder, target, load(builder, target) + part.to(FP32))


fp32_product = variants(product((0, 1), (12, ROW_STEP), (0, 1)), _fp32_product)
"""`product(avx512, rows, accumulate, a, b, c, steps)`: c[r] (+)= sum over k < steps of a[r, k] * b[k], steps >= 1."""
fp16_inner_product = variants(product((12, ROW_STEP), (0, 1)), _fp16_inner)
"""`product(rows, accumulate, a, b, c, steps)`: c[r] (+)= sum over k and i of a[r, k, i] * b[k, :, i], all float16."""
fp16_outer_product = variants([(24,), (FILTER_GRAD_ROWS,)], _fp16_outer)
"""`product(rows, a, b, c, steps)`: c[2 * r + i] += sum over k of a[r, k, i] * b[k], summed in float16; c float32."""


@numba.njit
def multiply_fp32(a, b, c, count, steps, avx512, accumulate):
    """c (count, 32) = a (count, steps) @ b (steps, 32), or c += ... with `accumulate`; `avx512`: use 512-bit vectors.

    a is a `Strided2D`, b and c are addresses. `count` is rounded up to a multiple of 4.
    """
    row = 0
    while row < count:
        rows = 12 if count - row >= 12 else ROW_STEP
        a_part = Strided2D(a.address + row * a.row_stride, a.row_stride, a.column_stride)
        fp32_product(avx512, rows, accumulate, a_part, b, c + row * FP32_ROW, steps)
        row += rows


@numba.njit
def multiply_fp16(a, b, c, count, pairs):
    """c (count, 32) = a (count, pairs, 2) @ b (pairs, 32, 2), the sum over the pairs and both of each; all float16.

    a is a `Strided2D`, b and c are addresses. `count` is rounded up to a multiple of 4.
    """
    chunks = (pairs + FP16_TERMS - 1) // FP16_TERMS
    row = 0
    while row < count:
        rows = 12 if count - row >= 12 else ROW_STEP
        for chunk in range(chunks):
            first, last = chunk * pairs // chunks, (chunk + 1) * pairs // chunks
            start = a.address + row * a.row_stride + first * a.column_stride
            a_part = Strided2D(start, a.row_stride, a.column_stride)
            fp16_inner_product(rows, chunk > 0, a_part, b + first * 2 * FP16_ROW, c + row * FP16_ROW, last - first)
        row += rows


@numba.njit
def add_outer_fp16(a, a_stride, b, c, count, steps):
    """c (count, 32) += a.T @ b for float16 a (steps, count), a row every `a_stride` bytes, and b (steps, 32).

    a, b and c are addresses; c is float32; count is a multiple of 8.
    """
    chunks = (steps + FP16_TERMS - 1) // FP16_TERMS
    row = 0
    while row < count:
        rows = 24 if count - row >= 24 else FILTER_GRAD_ROWS
        for chunk in range(chunks):
            first, last = chunk * steps // chunks, (chunk + 1) * steps // chunks
            a_part = Strided2D(a + 2 * row + first * a_stride, 4, a_stride)
            fp16_outer_product(rows, a_part, b + first * FP16_ROW, c + row * FP32_ROW, last - first)
        row += rows
