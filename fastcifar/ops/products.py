"""Matrix products of small blocks in registers; compiled into `winograd.py`'s kernels."""

from collections.abc import Callable

import numba
from llvmlite import ir

from fastcifar.ops.vectors import (
    ADDRESS,
    BYTES,
    FLOAT,
    FLOATS,
    HALF,
    LANES,
    WIDE_HALVES,
    Vec,
    at,
    broadcast,
    constant,
    load,
    operation,
    splat,
    store,
)

SLAB = 2 * LANES
"""Output channels between two transforms."""
SLAB_BYTES = 4 * SLAB
FEW, FEW_HALVES = 4, 8
"""Rows that are taken at a time at the end: fewer than that many lie behind those asked for and are touched as well."""
STEPS_IN_HALF = 96
"""Products that are summed in float16 before the sum is added to the others."""


def block_product(rows: int, vectors: int, *, accumulate: bool) -> Callable[..., None]:
    """An operation for compiled code: a matrix product of `rows` x `16 * vectors` results, all in registers.

    `product(a, a_row, a_step, b, b_step, c, c_row, steps)`: c[r] (+)= sum over k < steps of a[r, k] * b[k], where a row
    of a and of c lies a_row and c_row bytes behind the one before, a step a_step and b_step. steps >= 1.
    """

    def generate(builder, a, a_row, a_step, b, b_step, c, c_row, steps):
        a_rows = [builder.mul(a_row, ADDRESS(r)) for r in range(rows)]
        targets = [at(builder, c, builder.mul(c_row, ADDRESS(r))) for r in range(rows)]
        cells = [(r, v) for r in range(rows) for v in range(vectors)]
        first = {
            (r, v): load(builder, at(builder, targets[r], BYTES * v)).value if accumulate else constant(0, FLOATS)
            for r, v in cells
        }
        before, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
        builder.branch(loop)
        builder.position_at_end(loop)
        counted, step, start = (
            [builder.phi(ADDRESS) for _ in range(3)],
            [ADDRESS(1), a_step, b_step],
            [ADDRESS(0), a, b],
        )
        sums = {cell: builder.phi(FLOATS) for cell in cells}
        row = [load(builder, at(builder, counted[2], BYTES * v)) for v in range(vectors)]
        new = {}
        for r in range(rows):
            factor = broadcast(builder, at(builder, counted[1], a_rows[r]))
            for v in range(vectors):
                new[r, v] = Vec(builder, sums[r, v]) + factor * row[v]
        following = [builder.add(value, by) for value, by in zip(counted, step, strict=True)]
        for phi, initial, value in zip(counted, start, following, strict=True):
            phi.add_incoming(initial, before)
            phi.add_incoming(value, loop)
        for cell, phi in sums.items():
            phi.add_incoming(first[cell], before)
            phi.add_incoming(new[cell].value, loop)
        builder.cbranch(builder.icmp_signed("<", following[0], steps), loop, after)
        builder.position_at_end(after)
        for r, v in cells:
            store(builder, at(builder, targets[r], BYTES * v), new[r, v])

    return operation(generate)


def half_product(rows: int, *, accumulate: bool, total: ir.Type) -> Callable[..., None]:
    """An operation for compiled code: `block_product` of float16 factors, 32 results a row, summed in float16.

    `product(a, a_row, a_step, b, b_step, c, c_row, steps)`: the sums over these steps, begun with zero, are (added to)
    c, of the type `total`; so few steps at a time keep what rounding does small.
    """

    def generate(builder, a, a_row, a_step, b, b_step, c, c_row, steps):
        a_rows = [builder.mul(a_row, ADDRESS(r)) for r in range(rows)]
        before, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
        builder.branch(loop)
        builder.position_at_end(loop)
        counted, by, start = [builder.phi(ADDRESS) for _ in range(3)], [ADDRESS(1), a_step, b_step], [ADDRESS(0), a, b]
        sums = [builder.phi(WIDE_HALVES) for _ in range(rows)]
        row = load(builder, counted[2], WIDE_HALVES)
        new = []
        for r in range(rows):
            number = builder.load(builder.inttoptr(at(builder, counted[1], a_rows[r]), HALF.as_pointer()), align=2)
            new.append(Vec(builder, sums[r]) + Vec(builder, splat(builder, number, WIDE_HALVES)) * row)
        following = [builder.add(value, step) for value, step in zip(counted, by, strict=True)]
        for phi, initial, value in zip(counted, start, following, strict=True):
            phi.add_incoming(initial, before)
            phi.add_incoming(value, loop)
        for phi, vec in zip(sums, new, strict=True):
            phi.add_incoming(constant(0, WIDE_HALVES), before)
            phi.add_incoming(vec.value, loop)
        builder.cbranch(builder.icmp_signed("<", following[0], steps), loop, after)
        builder.position_at_end(after)
        for r in range(rows):
            target = at(builder, c, builder.mul(c_row, ADDRESS(r)))
            for v, part in enumerate([new[r]] if total == HALF else new[r].sixteens()):
                place = at(builder, target, BYTES * v)
                vec = part.of(total)
                store(builder, place, load(builder, place, vec.value.type) + vec if accumulate else vec)

    return operation(generate)


# 24 sums, 2 vectors of factors and a number fill the 32 registers of 512 bits; 12, 2 and one the 16 of 256
product_12x32, added_12x32 = (block_product(12, 2, accumulate=accumulate) for accumulate in (False, True))
product_4x32, added_4x32 = (block_product(4, 2, accumulate=accumulate) for accumulate in (False, True))
product_6x16, added_6x16 = (block_product(6, 1, accumulate=accumulate) for accumulate in (False, True))
product_4x16, added_4x16 = (block_product(4, 1, accumulate=accumulate) for accumulate in (False, True))
half_24x32, half_8x32 = (half_product(rows, accumulate=False, total=HALF) for rows in (24, FEW_HALVES))
half_added_24x32, half_added_8x32 = (half_product(rows, accumulate=True, total=HALF) for rows in (24, FEW_HALVES))
half_summed_24x32, half_summed_8x32 = (half_product(rows, accumulate=True, total=FLOAT) for rows in (24, FEW_HALVES))


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
    row = 0
    while row < count:
        rows = 24 if count - row >= 24 else FEW_HALVES
        for chunk in range(chunks):
            first, last = chunk * steps // chunks, (chunk + 1) * steps // chunks
            _multiply_rows_of_halves(
                a + row * a_row + first * a_step, a_row, a_step, b + first * 2 * SLAB, c + row * SLAB * total,
                last - first, rows, total, chunk > 0,
            )  # fmt: skip
        row += rows
