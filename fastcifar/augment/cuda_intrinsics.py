"""Operations that numba's CUDA target lacks: loads and stores of 16 bytes, and the bit pattern of a float.

Each is an intrinsic of one LLVM instruction, or plain Python in numba's simulator, which runs kernels as Python.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, types

from fastcifar.runtime.numba_cuda import import_numba_cuda

PAIR, WORD = ir.VectorType(ir.IntType(64), 2), ir.IntType(32)

load16: Any
"""load16(words, index): the tuple (words[index], words[index + 1]) of a uint64 pointer, at a multiple of 16 bytes."""
store16: Any
"""store16(words, index, low, high): sets words[index] and words[index + 1], at a multiple of 16 bytes."""
float_bits: Any
"""float_bits(value): the bit pattern of a float32 as uint32."""


def _address(builder: Any, words: Any, index: Any) -> Any:
    return builder.bitcast(builder.gep(words, [index]), PAIR.as_pointer())


def _load16(typing_context: Any, words: Any, index: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pair = builder.load(_address(builder, *arguments), align=16)
        parts = [builder.extract_element(pair, WORD(i)) for i in range(2)]
        return context.make_tuple(builder, signature.return_type, parts)

    return types.UniTuple(types.uint64, 2)(words, types.int64), code


def _store16(typing_context: Any, words: Any, index: Any, low: Any, high: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        words, index, low, high = arguments
        pair = ir.Constant(PAIR, ir.Undefined)
        for i, word in enumerate((low, high)):
            pair = builder.insert_element(pair, word, WORD(i))
        builder.store(pair, _address(builder, words, index), align=16)
        return context.get_dummy_value()

    return types.void(words, types.int64, types.uint64, types.uint64), code


def _float_bits(typing_context: Any, value: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], WORD)

    return types.uint32(types.float32), code


def _simulated_store16(words: Any, index: int, low: Any, high: Any) -> None:
    words[index], words[index + 1] = low, high


if config.ENABLE_CUDASIM:  # type: ignore[attr-defined]
    load16 = lambda words, index: (words[index], words[index + 1])  # noqa: E731
    store16 = _simulated_store16
    float_bits = lambda value: value.view(np.uint32)  # noqa: E731
else:
    intrinsic = import_numba_cuda().extending.intrinsic
    load16, store16, float_bits = intrinsic(_load16), intrinsic(_store16), intrinsic(_float_bits)
