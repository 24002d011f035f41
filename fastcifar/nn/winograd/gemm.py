"""Matrix products of small blocks in registers; compiled into `winograd.py`'s kernels."""

from collections.abc import Callable

import numba

from fastcifar.runtime.vectors import (
    ADDRESS,
    BYTES,
    FLOAT,
    FLOATS,
    LANES,
    WIDE_HALVES,
    Vec,
    at,
    broadcast,
    broadcast_pair,
    constant,
    load,
    operation,
    store,
)

SLAB = 2 * LANES
"""Output channels between two transforms."""
SLAB_BYTES = 4 * SLAB
FEW = 4
"""Rows that are taken at a time at the end: fewer than that many lie behind those asked for and are touched as well."""
ROWS_OF_SUMS = 2 * FEW
"""The rows of a filters' gradient come in so many: in pairs, of which at least FEW are taken at a time."""
STEPS_IN_HALF = 96
"""Products that one lane sums in float16 before its sum is added to others."""


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


def half_product(rows: int, *, two_rows: bool, accumulate: bool) -> Callable[..., None]:
    """An operation for compiled code: a matrix product of float16 with 32 results a row, summed in float16 as well.

    `product(a, a_row, a_step, b, b_step, c, c_row, steps)`; rows and steps lie apart as in `block_product`, but each
    holds two numbers of a, side by side: so 32 lanes are filled in one instruction, as with one float32, and serve two.
    The two are of one row: with b (steps, 32, 2) c[r] = sum over k and i of a[r, k, i] * b[k, :, i], of float16.
    Or, with `two_rows`, of two: with b (steps, 32) c[2 * r + i] = sum over k of a[r, k, i] * b[k], of float32.
    The sums begin with zero; with `accumulate` what they come to is added to c. steps >= 1.
    """

    def generate(builder, a, a_row, a_step, b, b_step, c, c_row, steps):
        a_rows = [builder.mul(a_row, ADDRESS(r)) for r in range(rows)]
        before, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
        builder.branch(loop)
        builder.position_at_end(loop)
        counted, by, start = [builder.phi(ADDRESS) for _ in range(3)], [ADDRESS(1), a_step, b_step], [ADDRESS(0), a, b]
        sums = {(r, v): builder.phi(WIDE_HALVES) for r in range(rows) for v in (0, 1)}
        if two_rows:
            numbers = load(builder, counted[2], WIDE_HALVES)
            factors = [numbers.picked([lane // 2 + v * LANES for lane in range(SLAB)]) for v in (0, 1)]
        else:
            factors = [load(builder, at(builder, counted[2], BYTES * v), WIDE_HALVES) for v in (0, 1)]
        new = {}
        for r in range(rows):
            two = broadcast_pair(builder, at(builder, counted[1], a_rows[r]))
            for v in (0, 1):
                new[r, v] = Vec(builder, sums[r, v]) + two * factors[v]
        following = [builder.add(value, step) for value, step in zip(counted, by, strict=True)]
        for phi, initial, value in zip(counted, start, following, strict=True):
            phi.add_incoming(initial, before)
            phi.add_incoming(value, loop)
        for cell, phi in sums.items():
            phi.add_incoming(constant(0, WIDE_HALVES), before)
            phi.add_incoming(new[cell].value, loop)
        builder.cbranch(builder.icmp_signed("<", following[0], steps), loop, after)
        builder.position_at_end(after)
        for r in range(rows):
            ones, others = (new[r, 0].picked(range(first, 2 * SLAB, 2), new[r, 1]) for first in (0, 1))
            if two_rows:
                results = {
                    (2 * r + row, v * BYTES): part.of(FLOAT)
                    for row, vec in enumerate((ones, others))
                    for v, part in enumerate(vec.sixteens())
                }
            else:
                results = {(r, 0): ones + others}
            for (row, offset), vec in results.items():
                place = at(builder, at(builder, c, builder.mul(c_row, ADDRESS(row))), offset)
                store(builder, place, load(builder, place, vec.value.type) + vec if accumulate else vec)

    return operation(generate)


# 24 sums, 2 vectors of factors and a number fill the 32 registers of 512 bits; 12, 2 and one the 16 of 256
product_12x32, added_12x32 = (block_product(12, 2, accumulate=accumulate) for accumulate in (False, True))
product_4x32, added_4x32 = (block_product(4, 2, accumulate=accumulate) for accumulate in (False, True))
product_6x16, added_6x16 = (block_product(6, 1, accumulate=accumulate) for accumulate in (False, True))
product_4x16, added_4x16 = (block_product(4, 1, accumulate=accumulate) for accumulate in (False, True))
half_12x32, half_4x32 = (half_product(rows, two_rows=False, accumulate=False) for rows in (12, FEW))
half_added_12x32, half_added_4x32 = (half_product(rows, two_rows=False, accumulate=True) for rows in (12, FEW))
outer_24x32, outer_8x32 = (half_product(rows, two_rows=True, accumulate=True) for rows in (12, FEW))


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
def multiply_halves(a, a_row, b, c, count, pairs):
    """c (count, 32) = a (count, pairs, 2) @ b (pairs, 32, 2), the sum over the pairs and both of each; all float16.

    As many rows more than `count` are read and written as make it a multiple of 4.
    """
    chunks = (pairs + STEPS_IN_HALF - 1) // STEPS_IN_HALF
    row = 0
    while row < count:
        rows = 12 if count - row >= 12 else FEW
        for chunk in range(chunks):
            first, last = chunk * pairs // chunks, (chunk + 1) * pairs // chunks
            left, right, result = a + row * a_row + first * 4, b + first * 4 * SLAB, c + row * 2 * SLAB
            if rows == 12 and chunk:
                half_added_12x32(left, a_row, 4, right, 4 * SLAB, result, 2 * SLAB, last - first)
            elif rows == 12:
                half_12x32(left, a_row, 4, right, 4 * SLAB, result, 2 * SLAB, last - first)
            elif chunk:
                half_added_4x32(left, a_row, 4, right, 4 * SLAB, result, 2 * SLAB, last - first)
            else:
                half_4x32(left, a_row, 4, right, 4 * SLAB, result, 2 * SLAB, last - first)
        row += rows


@numba.njit
def add_outer_halves(a, a_step, b, c, count, steps):
    """c (count, 32) += a.T @ b for float16 a (steps, count) and b (steps, 32), float32 c; count a multiple of 8."""
    chunks = (steps + STEPS_IN_HALF - 1) // STEPS_IN_HALF
    row = 0
    while row < count:
        rows = 24 if count - row >= 24 else ROWS_OF_SUMS
        for chunk in range(chunks):
            first, last = chunk * steps // chunks, (chunk + 1) * steps // chunks
            left, right, result = a + 2 * row + first * a_step, b + first * 2 * SLAB, c + row * SLAB_BYTES
            if rows == 24:
                outer_24x32(left, 4, a_step, right, 2 * SLAB, result, SLAB_BYTES, last - first)
            else:
                outer_8x32(left, 4, a_step, right, 2 * SLAB, result, SLAB_BYTES, last - first)
        row += rows
