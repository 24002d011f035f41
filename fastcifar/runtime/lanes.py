"""One row of an image as one vector: 96 lanes of LLVM's own vector type, for loops that must not depend on luck.

A compiler's auto-vectoriser gives up at a flip, at an unaligned start or at two arrays that might overlap, and halves
the width on CPUs where 512 bits once were slow. Written as vectors, a row is six 512-bit registers, or twelve of 256,
from its load to its store. `Lanes` gives such a vector the operators that `pixel.py` uses, so the arithmetic is still
written once: for NumPy, for a GPU's thread and for these lanes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

SIDE, CHANNELS = 32, 3
ROW = SIDE * CHANNELS
BYTE, WORD, FLOAT = ir.IntType(8), ir.IntType(32), ir.FloatType()
MIRRORED = [CHANNELS * x + c for x in reversed(range(SIDE)) for c in range(CHANNELS)]
CACHE_LINE = 64


class Lanes:
    """A vector of 96 uint32 under construction; the other operand is one as well, or a number for all lanes."""

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.builder, self.value = builder, value

    def _with(self, instruction: str, other: "Lanes | np.uint32") -> "Lanes":
        right = other.value if isinstance(other, Lanes) else ir.Constant(_vector(WORD), [int(other)] * ROW)
        return Lanes(self.builder, getattr(self.builder, instruction)(self.value, right))

    def __add__(self, other: "Lanes | np.uint32") -> "Lanes":
        return self._with("add", other)

    def __sub__(self, other: "Lanes | np.uint32") -> "Lanes":
        return self._with("sub", other)

    def __and__(self, other: "Lanes | np.uint32") -> "Lanes":
        return self._with("and_", other)

    def __or__(self, other: "Lanes | np.uint32") -> "Lanes":
        return self._with("or_", other)

    def __lshift__(self, other: "Lanes | np.uint32") -> "Lanes":
        return self._with("shl", other)

    def __rshift__(self, other: "Lanes | np.uint32") -> "Lanes":
        return self._with("lshr", other)


def _vector(element: ir.Type) -> ir.VectorType:
    return ir.VectorType(element, ROW)


def _element(context: Any, builder: ir.IRBuilder, kind: Any, array: ir.Value, start: ir.Value) -> ir.Value:
    """Pointer to element `start` of an array; nothing checks that 96 follow it."""
    return builder.gep(context.make_array(kind)(context, builder, array).data, [start])


def _load(builder: ir.IRBuilder, pointer: ir.Value, element: ir.Type) -> ir.Value:
    return builder.load(builder.bitcast(pointer, _vector(element).as_pointer()), align=1)


def row_store(cast: Callable[[Any], Any], *, mirrored: bool) -> Callable[..., None]:
    """An operation for compiled code: 96 staged bytes to `cast(bits of byte * scale + bias)`.

    `store(out, out_start, staged, staged_start, scale, bias)`: out uint16 or uint32 1-D; staged uint8 1-D; both starts
    are positions from which 96 elements lie inside the array (unchecked); scale and bias float32 (96,). `mirrored`
    turns the order of the 32 pixels around. `cast` gets the float32 bits as `Lanes`.
    """

    @intrinsic
    def store(typing, out, out_start, staged, staged_start, scale, bias):
        def generate(context, builder, signature, arguments):
            out_value, out_at, staged_value, staged_at, *factors = arguments
            kinds = signature.args
            row = _load(builder, _element(context, builder, kinds[2], staged_value, staged_at), BYTE)
            if mirrored:
                nothing = ir.Constant(_vector(BYTE), ir.Undefined)
                row = builder.shuffle_vector(row, nothing, ir.Constant(_vector(WORD), MIRRORED))
            first = ir.Constant(staged_at.type, 0)
            scales, biases = (
                _load(builder, _element(context, builder, kind, value, first), FLOAT)
                for kind, value in zip(kinds[4:], factors, strict=True)
            )
            values = builder.sitofp(builder.zext(row, _vector(WORD)), _vector(FLOAT))
            values = builder.fadd(builder.fmul(values, scales), biases)
            bits = cast(Lanes(builder, builder.bitcast(values, _vector(WORD)))).value
            target = context.get_value_type(out.dtype)
            if target != WORD:
                bits = builder.trunc(bits, _vector(target))
            pointer = _element(context, builder, kinds[0], out_value, out_at)
            builder.store(bits, builder.bitcast(pointer, _vector(target).as_pointer()), align=1)
            return context.get_dummy_value()

        return types.void(out, types.intp, staged, types.intp, scale, bias), generate

    return store


def _prefetch(typing, array, start):
    def generate(context, builder, signature, arguments):
        pointer = builder.bitcast(_element(context, builder, signature.args[0], *arguments), BYTE.as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, WORD, WORD, WORD])
        hint = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
        builder.call(hint, [pointer, WORD(0), WORD(2), WORD(1)])  # to be read, soon to be used, as data
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


prefetch: Callable[..., None] = intrinsic(_prefetch)
"""`prefetch(array, start)` in compiled code asks for the cache line of element `start`; a hint, without any effect."""
