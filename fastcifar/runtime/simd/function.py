"""Functions for numba code that are generated as LLVM instructions."""

from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastcifar.runtime.simd.memory import at
from fastcifar.runtime.simd.vector import INT64, ITEMSIZE, UINT8, UINT32, Value

VOID: Any = types.void
NAMED_TUPLE: Any = types.BaseNamedTuple


class ArrayArgument(NamedTuple):
    """An array argument inside a generated function: the address of its data and its element type."""

    address: Value
    element: ir.Type

    def at(self, builder: ir.IRBuilder, index: Value) -> Value:
        """The address of element `index` of a C-contiguous array."""
        return at(builder, self.address, builder.mul(index, INT64(ITEMSIZE[self.element])))


def simd_function(generate: Callable[..., None]) -> Callable[..., None]:
    """Makes `generate(builder, *arguments)`, which emits LLVM instructions, callable from numba code.

    It gets integers as 64-bit values, named tuples of integers as named tuples of such values, and arrays as
    `ArrayArgument`. Bind the result to a global of a module: closure variables of a kernel are part of its key in the
    disk cache, and these functions are pickled differently by every process.
    """

    def typed(typing, *arguments):
        kinds = [_argument_type(kind) for kind in arguments]

        def lowered(context, builder, signature, values):
            unpacked = (builder.extract_value(values[0], i) for i in range(len(kinds)))
            generate(builder, *(_argument(context, builder, *pair) for pair in zip(kinds, unpacked, strict=True)))
            return context.get_dummy_value()

        return VOID(types.StarArgTuple.from_types(kinds)), lowered

    return intrinsic(typed)


def _argument_type(kind: Any) -> Any:
    if isinstance(kind, NAMED_TUPLE):
        return types.NamedUniTuple(types.intp, len(kind), kind.instance_class)
    return kind if isinstance(kind, types.Array) else types.intp


def _argument(context: Any, builder: ir.IRBuilder, kind: Any, value: Value) -> Any:
    if isinstance(kind, NAMED_TUPLE):
        return kind.instance_class(*(builder.extract_value(value, i) for i in range(len(kind))))
    if isinstance(kind, types.Array):
        data = context.make_array(kind)(context, builder, value).data
        return ArrayArgument(builder.ptrtoint(data, INT64), context.get_value_type(kind.dtype))
    return value


def variants(cases: Iterable[tuple[int, ...]], generate: Callable[..., None]) -> Callable[..., None]:
    """A `simd_function` whose first arguments select one of `cases`: `generate(builder, *case, *other_arguments)`."""
    cases = list(cases)

    def select(builder, *arguments):
        for case in cases:
            equal = [builder.icmp_signed("==", v, INT64(n)) for v, n in zip(arguments, case, strict=False)]
            with builder.if_then(reduce(builder.and_, equal)):
                generate(builder, *case, *arguments[len(case) :])

    return simd_function(select)


def _prefetch(builder, array, index):
    pointer = builder.inttoptr(array.at(builder, index), UINT8.as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, UINT32, UINT32, UINT32])
    hint = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
    builder.call(hint, [pointer, UINT32(0), UINT32(2), UINT32(1)])  # for reading, used soon, data


prefetch = simd_function(_prefetch)
"""`prefetch(array, index)` asks for the cache line of an element; a hint without other effects."""
