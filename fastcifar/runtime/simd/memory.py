"""Vectors in memory: loads and stores for generated code, addresses and aligned buffers for numba code."""

from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastcifar.runtime.simd.vector import FP16X32, FP32X16, INT64, ITEMSIZE, UINT32, UINT32X16, Value, Vector

CACHE_LINE = 64
INTP: Any = types.intp


def at(builder: ir.IRBuilder, address: Value, offset: int | Value) -> Value:
    """The address `offset` bytes further on."""
    return builder.add(address, INT64(offset) if isinstance(offset, int) else offset)


def load(builder: ir.IRBuilder, address: Value, vector: ir.VectorType = FP32X16) -> Vector:
    """Reads a vector."""
    pointer = builder.inttoptr(address, vector.as_pointer())
    return Vector(builder, builder.load(pointer, align=ITEMSIZE[vector.element]))


def store(builder: ir.IRBuilder, address: Value, vector: Vector) -> None:
    """Writes a vector."""
    pointer = builder.inttoptr(address, vector.value.type.as_pointer())
    builder.store(vector.value, pointer, align=ITEMSIZE[vector.value.type.element])


def broadcast(builder: ir.IRBuilder, address: Value) -> Vector:
    """The float32 at an address in 16 lanes."""
    return _broadcast(builder, address, FP32X16, align=4)


def broadcast_fp16_pair(builder: ir.IRBuilder, address: Value) -> Vector:
    """The two float16 at an address, alternating in 32 lanes."""
    pairs = _broadcast(builder, address, UINT32X16, align=2)
    return Vector(builder, builder.bitcast(pairs.value, FP16X32))


def _broadcast(builder: ir.IRBuilder, address: Value, vector: ir.VectorType, *, align: int) -> Vector:
    number = builder.load(builder.inttoptr(address, vector.element.as_pointer()), align=align)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), number, UINT32(0))
    return Vector(builder, first).shuffle([0] * vector.count)


class Strided2D(NamedTuple):
    """Vectors on a grid in memory: the address of the first, and bytes to the next row and to the next column."""

    address: Value
    row_stride: Value
    column_stride: Value


def cell(builder: ir.IRBuilder, grid: Strided2D, row: int, column: int) -> Value:
    """The address of one vector of a grid."""
    in_row = at(builder, grid.address, builder.mul(grid.row_stride, INT64(row)))
    return at(builder, in_row, builder.mul(grid.column_stride, INT64(column)))


@numba.njit(inline="always")
def address(array):
    """Where an array begins. Numba frees an array after the last use of its name: take the address where it is used."""
    return np.int64(array.ctypes.data)


def _itemsize(typing, array):
    size = array.dtype.bitwidth // 8
    return INTP(array), lambda context, *_: context.get_constant(INTP, size)


itemsize: Any = intrinsic(_itemsize)
"""`itemsize(array)`: bytes of an element as a compile-time constant, so that code for other types is not compiled."""


@numba.njit
def aligned_zeros(count, dtype):
    """Zeros (count,) that begin at a cache line: loads that cross two lines take twice as long."""
    memory = np.zeros(count + CACHE_LINE, dtype)
    skip = (-np.int64(memory.ctypes.data)) % CACHE_LINE // itemsize(memory)
    return memory[skip : skip + count]
