"""AMX's tile registers for numba code: products of 32x32 blocks, from tiles of 16 rows of 64 bytes.

Tiles 0 to 3 hold the float32 sums of a block, two rows of tiles by two columns; 4 and 5 a part of the left matrix, 6
and 7 of the right one. A tile of the left matrix has 16 rows of 32 bfloat16; one of the right has 16 rows of 16 pairs:
row p holds the rows 2 p and 2 p + 1 of the matrix, interleaved (Intel 64 manual, volume 1, chapter 18).
"""

from typing import Any

import numpy as np
from llvmlite import ir

from fastcifar.runtime.simd.function import simd_function
from fastcifar.runtime.simd.memory import at
from fastcifar.runtime.simd.vector import INT64, UINT8, Value

BLOCK = 32
"""Rows and columns of a block of sums, and the terms that one call of `add_product` adds to each."""
TILE_ROWS, TILE_ROW_BYTES = 16, 64
TILE_BYTES = TILE_ROWS * TILE_ROW_BYTES
TILES = 8
BYTES = UINT8.as_pointer()


def configuration() -> np.ndarray:
    """The argument of `configure`: all tiles full, uint8 (64,)."""
    found = np.zeros(64, np.uint8)
    found[0] = 1  # palette
    found[16 : 16 + 2 * TILES : 2] = TILE_ROW_BYTES
    found[48 : 48 + TILES] = TILE_ROWS
    return found


def _call(builder: ir.IRBuilder, instruction: str, *arguments: Value) -> None:
    name = f"llvm.x86.{instruction}"
    kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
    known: Any = builder.module.globals
    builder.call(known.get(name) or ir.Function(builder.module, kind, name), arguments)


def _tile(builder: ir.IRBuilder, instruction: str, tile: int, address: Value, row_bytes: Value) -> None:
    _call(builder, instruction, UINT8(tile), builder.inttoptr(address, BYTES), row_bytes)


def _configure(builder, address):
    _call(builder, "ldtilecfg", builder.inttoptr(address, BYTES))


def _release(builder):
    _call(builder, "tilerelease")


def _zero_block(builder):
    for tile in range(4):
        _call(builder, "tilezero", UINT8(tile))


def _move_block(instruction):
    def move(builder, address, row_bytes):
        second = builder.add(address, builder.mul(row_bytes, INT64(TILE_ROWS)))
        for tile, place in enumerate((address, at(builder, address, TILE_ROW_BYTES), second)):
            _tile(builder, instruction, tile, place, row_bytes)
        _tile(builder, instruction, 3, at(builder, second, TILE_ROW_BYTES), row_bytes)

    return move


def _add_product(builder, a, a_row_bytes, b, b_next):
    _tile(builder, "tileloadd64", 4, a, a_row_bytes)
    _tile(builder, "tileloadd64", 5, builder.add(a, builder.mul(a_row_bytes, INT64(TILE_ROWS))), a_row_bytes)
    _tile(builder, "tileloadd64", 6, b, INT64(TILE_ROW_BYTES))
    _tile(builder, "tileloadd64", 7, builder.add(b, b_next), INT64(TILE_ROW_BYTES))
    for tile in range(4):
        _call(builder, "tdpbf16ps", UINT8(tile), UINT8(4 + tile // 2), UINT8(6 + tile % 2))


configure = simd_function(_configure)
"""`configure(address)` of a `configuration()`; every thread needs it before the tiles and `release()` after them."""
release = simd_function(_release)
zero_block = simd_function(_zero_block)
"""Sets the sums to zero."""
load_block = simd_function(_move_block("tileloadd64"))
"""`load_block(address, row_bytes)` reads the sums from a float32 matrix."""
store_block = simd_function(_move_block("tilestored64"))
"""`store_block(address, row_bytes)` writes them."""
add_product = simd_function(_add_product)
"""`add_product(a, a_row_bytes, b, b_next)`: sums += a @ b for a (32, 32) and b (32, 32), both bfloat16.

a and b are addresses. The two tiles of b, 16 columns each, are dense and `b_next` bytes apart."""
