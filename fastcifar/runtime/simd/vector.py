"""`Vector`: an LLVM vector of any length and element type with Python's operators."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir

Value = Any  # an LLVM value; llvmlite's own annotations are incomplete
Number = float | np.integer

LANES = 16  # float32 numbers in 512 bits
VECTOR_BYTES = 4 * LANES


class BFloatType(ir.Type):
    """bfloat16, the upper half of a float32, which llvmlite lacks."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloatType)

    def __hash__(self) -> int:
        return hash(BFloatType)


FP32, FP16, BF16 = ir.FloatType(), ir.HalfType(), BFloatType()
UINT8, UINT16, UINT32, INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
FP32X16, UINT32X16, FP16X16 = (ir.VectorType(element, LANES) for element in (FP32, UINT32, FP16))
FP16X32 = ir.VectorType(FP16, 2 * LANES)
ITEMSIZE = {UINT8: 1, UINT16: 2, FP16: 2, BF16: 2, UINT32: 4, FP32: 4}
CONVERSIONS = {
    (UINT8, FP32): "uitofp",
    (UINT32, UINT16): "trunc",
    (UINT32, UINT8): "trunc",
    (FP32, FP16): "fptrunc",
    (FP32, BF16): "fptrunc",
    (FP16, FP32): "fpext",
}
CONTRACT = ("contract",)  # allows a fused multiply-add; nothing is reordered and NaNs are kept


class Vector:
    """An LLVM vector under construction; other operands are vectors of the same type, or numbers for all lanes.

    A mask is an LLVM vector with one bit a lane.
    """

    def __init__(self, builder: ir.IRBuilder, value: Value) -> None:
        self.builder, self.value = builder, value

    def _binary(self, instruction: str, left: "Vector | Number", right: "Vector | Number") -> "Vector":
        operands = [self._operand(operand) for operand in (left, right)]
        if isinstance(self.value.type.element, ir.IntType):
            return Vector(self.builder, getattr(self.builder, instruction)(*operands))
        return Vector(self.builder, getattr(self.builder, f"f{instruction}")(*operands, flags=CONTRACT))

    def _operand(self, operand: "Vector | Number") -> Value:
        return operand.value if isinstance(operand, Vector) else constant(operand, self.value.type)

    def __add__(self, other: "Vector | Number") -> "Vector":
        return self._binary("add", self, other)

    def __sub__(self, other: "Vector | Number") -> "Vector":
        return self._binary("sub", self, other)

    def __mul__(self, other: "Vector | Number") -> "Vector":
        return self._binary("mul", self, other)

    def __radd__(self, other: Number) -> "Vector":
        return self._binary("add", other, self)

    def __rsub__(self, other: Number) -> "Vector":
        return self._binary("sub", other, self)

    def __rmul__(self, other: Number) -> "Vector":
        return self._binary("mul", other, self)

    def __rtruediv__(self, other: Number) -> "Vector":
        return self._binary("div", other, self)

    def __and__(self, other: "Vector | Number") -> "Vector":
        return self._binary("and_", self, other)

    def __or__(self, other: "Vector | Number") -> "Vector":
        return self._binary("or_", self, other)

    def __lshift__(self, other: "Vector | Number") -> "Vector":
        return self._binary("shl", self, other)

    def __rshift__(self, other: "Vector | Number") -> "Vector":
        return self._binary("lshr", self, other)

    def __gt__(self, other: "Vector | Number") -> Value:
        """Mask of the float lanes that are larger; false where either is NaN."""
        return self.builder.fcmp_ordered(">", self.value, self._operand(other))

    def is_nan(self) -> Value:
        """Mask of the float lanes that are NaN."""
        return self.builder.fcmp_unordered("uno", self.value, self.value)

    def equals(self, other: "Vector | Number") -> Value:
        """Mask of the integer lanes that are equal."""
        return self.builder.icmp_unsigned("==", self.value, self._operand(other))

    def where(self, mask: Value, other: "Vector | Number") -> "Vector":
        """These lanes where `mask` is set, the other's elsewhere, as `torch.Tensor.where`."""
        return Vector(self.builder, self.builder.select(mask, self.value, self._operand(other)))

    def clamp(self, limit: float) -> "Vector":
        """Lanes clamped to [-limit, limit]; NaNs are kept."""
        low = self.where(self.builder.fcmp_unordered(">", self.value, self._operand(-limit)), -limit)
        return low.where(self.builder.fcmp_unordered("<", low.value, self._operand(limit)), limit)

    def to(self, element: ir.Type) -> "Vector":
        """Lanes converted to another type; floats are rounded to nearest, and float16 overflows to infinity."""
        source, lanes = self.value.type.element, self.value.type.count
        if source == element:
            return self
        convert = getattr(self.builder, CONVERSIONS[source, element])
        return Vector(self.builder, convert(self.value, ir.VectorType(element, lanes)))

    def bitcast(self, element: ir.Type) -> "Vector":
        """The same bits as lanes of another type: as many of the same size, more of a smaller or fewer of a larger."""
        count = self.value.type.count * ITEMSIZE[self.value.type.element] // ITEMSIZE[element]
        return Vector(self.builder, self.builder.bitcast(self.value, ir.VectorType(element, count)))

    def shuffle(self, lanes: Sequence[int], other: "Vector | None" = None) -> "Vector":
        """The lanes with these numbers, in this order; the other's lanes are numbered after these."""
        second = ir.Constant(self.value.type, ir.Undefined) if other is None else other.value
        mask = ir.Constant(ir.VectorType(UINT32, len(lanes)), list(lanes))
        return Vector(self.builder, self.builder.shuffle_vector(self.value, second, mask))

    def split(self) -> list["Vector"]:
        """Vectors of 16 lanes each."""
        return [self.shuffle(range(first, first + LANES)) for first in range(0, self.value.type.count, LANES)]

    def exp2_integral(self) -> "Vector":
        """2 ** lane for 16 float32 lanes with integral values from -126 to 127, by writing the exponent's bits."""
        exponent = Vector(self.builder, self.builder.fptosi(self.value, UINT32X16)) + 127
        return (exponent << np.uint32(23)).bitcast(FP32)


def constant(number: Number, vector: ir.VectorType) -> ir.Constant:
    """The number, rounded to the element type, in all lanes."""
    convert: Any = {FP16: np.float16, FP32: np.float32}.get(vector.element)
    return ir.Constant(vector, [float(convert(number)) if convert else int(number)] * vector.count)
