"""Vectors of float32 or float16 in LLVM, with Python's operators: the inner loops of our layers are made of them.

As in `augment/lanes.py`, nothing is left to a compiler's auto-vectoriser. A kernel is compiled code over addresses: it
is told where arrays begin and what lies how many bytes apart, and nothing checks what it is told.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

Value = Any  # of LLVM; llvmlite's own annotations are not to be relied on

LANES = 16
BYTES = 4 * LANES
FLOAT, WORD, BYTE, ADDRESS = ir.FloatType(), ir.IntType(32), ir.IntType(8), ir.IntType(64)
FLOATS, WORDS = (ir.VectorType(element, LANES) for element in (FLOAT, WORD))
HALF = ir.HalfType()
HALVES, WIDE_HALVES = (ir.VectorType(HALF, lanes) for lanes in (LANES, 2 * LANES))
VOID: Any = types.void
FUSED = ("contract",)  # a product and a sum may become one instruction; nothing is re-ordered, NaNs stay


class Vec:
    """Lanes under construction, of one type; the other operand is such a vector as well, or a number for all lanes."""

    def __init__(self, builder: ir.IRBuilder, value: Value) -> None:
        self.builder, self.value = builder, value

    def _with(self, instruction: str, left: "Vec | float", right: "Vec | float") -> "Vec":
        values = [self._lanes(operand) for operand in (left, right)]
        return Vec(self.builder, getattr(self.builder, instruction)(*values, flags=FUSED))

    def _lanes(self, operand: "Vec | float") -> Value:
        return operand.value if isinstance(operand, Vec) else constant(operand, self.value.type)

    def __add__(self, other: "Vec | float") -> "Vec":
        return self._with("fadd", self, other)

    def __sub__(self, other: "Vec | float") -> "Vec":
        return self._with("fsub", self, other)

    def __mul__(self, other: "Vec | float") -> "Vec":
        return self._with("fmul", self, other)

    def __radd__(self, other: float) -> "Vec":
        return self._with("fadd", other, self)

    def __rsub__(self, other: float) -> "Vec":
        return self._with("fsub", other, self)

    def __rmul__(self, other: float) -> "Vec":
        return self._with("fmul", other, self)

    def __rtruediv__(self, other: float) -> "Vec":
        return self._with("fdiv", other, self)

    def above(self, other: "Vec | float") -> Value:
        """One bit a lane: whether it is larger than the other's; not where either is NaN."""
        return self.builder.fcmp_ordered(">", self.value, self._lanes(other))

    def where(self, bits: Value, other: "Vec | float") -> "Vec":
        """These lanes where `bits`, the other's elsewhere."""
        return Vec(self.builder, self.builder.select(bits, self.value, self._lanes(other)))

    def within(self, limit: float) -> "Vec":
        """These lanes, those beyond -limit and limit moved there; NaNs stay."""
        low = self.where(self.builder.fcmp_unordered(">", self.value, self._lanes(-limit)), -limit)
        return low.where(self.builder.fcmp_unordered("<", low.value, self._lanes(limit)), limit)

    def of(self, element: ir.Type) -> "Vec":
        """These lanes as numbers of another type, rounded; what is too large for float16 becomes infinite."""
        if self.value.type.element == element:
            return self
        convert = self.builder.fptrunc if element == HALF else self.builder.fpext
        return Vec(self.builder, convert(self.value, ir.VectorType(element, self.value.type.count)))

    def picked(self, places: Sequence[int], other: "Vec | None" = None) -> "Vec":
        """The lanes with these numbers, in this order; the other's are numbered on from the last of these."""
        behind = ir.Constant(self.value.type, ir.Undefined) if other is None else other.value
        mask = ir.Constant(ir.VectorType(WORD, len(places)), list(places))
        return Vec(self.builder, self.builder.shuffle_vector(self.value, behind, mask))

    def sixteens(self) -> list["Vec"]:
        """These lanes as vectors of sixteen."""
        return [self.picked(range(first, first + LANES)) for first in range(0, self.value.type.count, LANES)]

    def power_of_two(self) -> "Vec":
        """2 ** lane for whole lanes from -126 to 127, by writing the exponent's bits."""
        whole = self.builder.fptosi(self.value, WORDS)
        exponent = self.builder.add(whole, ir.Constant(WORDS, [127] * LANES))
        bits = self.builder.shl(exponent, ir.Constant(WORDS, [23] * LANES))
        return Vec(self.builder, self.builder.bitcast(bits, FLOATS))


def constant(number: float, vector: ir.VectorType) -> ir.Constant:
    """The same number in all lanes."""
    rounded = float(np.float16(number) if vector.element == HALF else np.float32(number))
    return ir.Constant(vector, [rounded] * vector.count)


def at(builder: ir.IRBuilder, address: Value, offset: int | Value) -> Value:
    """An address so many bytes further on."""
    return builder.add(address, ADDRESS(offset) if isinstance(offset, int) else offset)


def load(builder: ir.IRBuilder, address: Value, vector: ir.VectorType = FLOATS) -> Vec:
    """The numbers of such a vector at an address."""
    pointer = builder.inttoptr(address, vector.as_pointer())
    return Vec(builder, builder.load(pointer, align=2 if vector.element == HALF else 4))


def store(builder: ir.IRBuilder, address: Value, vec: Vec) -> None:
    """Writes a vector to an address."""
    vector = vec.value.type
    pointer = builder.inttoptr(address, vector.as_pointer())
    builder.store(vec.value, pointer, align=2 if vector.element == HALF else 4)


def codes(number: int, lanes: int) -> ir.Constant:
    """The same small number in so many bytes."""
    return ir.Constant(ir.VectorType(BYTE, lanes), [number] * lanes)


def load_codes(builder: ir.IRBuilder, address: Value, lanes: int) -> Value:
    """So many bytes at an address."""
    return builder.load(builder.inttoptr(address, ir.VectorType(BYTE, lanes).as_pointer()), align=1)


def store_codes(builder: ir.IRBuilder, address: Value, codes: Value) -> None:
    """Writes bytes to an address."""
    builder.store(codes, builder.inttoptr(address, codes.type.as_pointer()), align=1)


def broadcast(builder: ir.IRBuilder, address: Value) -> Vec:
    """The one number at an address, in all lanes."""
    number = builder.load(builder.inttoptr(address, FLOAT.as_pointer()), align=4)
    return Vec(builder, splat(builder, number, FLOATS))


def broadcast_pair(builder: ir.IRBuilder, address: Value) -> Vec:
    """The two float16 at an address, one after the other in 32 lanes."""
    both = builder.load(builder.inttoptr(address, WORD.as_pointer()), align=2)
    return Vec(builder, builder.bitcast(splat(builder, both, WORDS), WIDE_HALVES))


def splat(builder: ir.IRBuilder, number: Value, vector: ir.VectorType) -> Value:
    """A number under construction in all lanes."""
    nothing = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(nothing, number, WORD(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(WORD, vector.count), [0] * vector.count))


def operation(generate: Callable[..., None]) -> Callable[..., None]:
    """`generate(builder, *arguments)` as a function for compiled code; its arguments are addresses, strides, counts."""

    def typed(typing, *arguments):
        def lowered(context, builder, signature, values):
            generate(builder, *(builder.extract_value(values[0], i) for i in range(len(arguments))))
            return context.get_dummy_value()

        return VOID(types.StarArgTuple.from_types([types.intp] * len(arguments))), lowered

    return intrinsic(typed)


def copying(lanes: int, element: ir.Type = FLOAT, to: ir.Type = FLOAT) -> Callable[..., None]:
    """An operation for compiled code, `copy(source, target)`: so many numbers, which may become of another type."""
    vector = ir.VectorType(element, lanes)
    return operation(lambda builder, source, target: store(builder, target, load(builder, source, vector).of(to)))


def combine(matrix: np.ndarray, inputs: Sequence[Vec]) -> list[Vec]:
    """The product of a constant matrix (m, n) with n vectors, in few operations.

    Columns that differ in signs only, as those of the points +p and -p may, are taken as the sum and the difference of
    their inputs; rows that do are the sum and the difference of two parts.
    """
    matrix, inputs = matrix.copy(), list(inputs)
    for j in range(matrix.shape[1]):
        for k in range(j + 1, matrix.shape[1]):
            same, opposite = matrix[:, j] == matrix[:, k], matrix[:, j] == -matrix[:, k]
            if (same | opposite).all() and (same & ~opposite).any() and (opposite & ~same).any():
                inputs[j], inputs[k] = inputs[j] + inputs[k], inputs[j] - inputs[k]
                matrix[:, j], matrix[:, k] = np.where(same, matrix[:, j], 0), np.where(opposite, matrix[:, j], 0)
    outputs: dict[int, Vec] = {}
    for i, row in enumerate(matrix):
        if i in outputs:
            continue
        for j in range(i + 1, len(matrix)):
            even, odd = (row + matrix[j]) / 2, (row - matrix[j]) / 2
            if j not in outputs and even.any() and odd.any() and (abs(row) == abs(matrix[j])).all():
                left, right = _weighted(even, inputs), _weighted(odd, inputs)
                outputs[i], outputs[j] = left + right, left - right
                break
        else:
            outputs[i] = _weighted(row, inputs)
    return [outputs[i] for i in range(len(matrix))]


def _weighted(weights: np.ndarray, inputs: Sequence[Vec]) -> Vec:
    terms = [(float(weight), vec) for weight, vec in zip(weights, inputs, strict=True) if weight]
    terms.sort(key=lambda term: term[0] != 1)  # begin with one that is not multiplied, if there is one
    (weight, vec), *rest = terms
    total = vec if weight == 1 else weight * vec
    for weight, vec in rest:
        total = total + vec if weight == 1 else total - vec if weight == -1 else total + weight * vec
    return total


@numba.njit(inline="always")
def address(array):
    """Where an array begins; the array lives as long as its name is used, so take the address where it is used."""
    return np.int64(array.ctypes.data)


@numba.njit
def aligned_zeros(count):
    """float32 zeros (count,) from the beginning of a cache line on: vectors that lie across two lines cost twice."""
    room = np.zeros(count + LANES, np.float32)
    skip = (-np.int64(room.ctypes.data) // 4) % LANES
    return room[skip : skip + count]
