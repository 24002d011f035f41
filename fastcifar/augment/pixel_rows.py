"""One row of an image as one vector of 96 lanes: six 512-bit registers, or twelve of 256 bits, from load to store.

`pixel.py` gets the vector as its operand, so its arithmetic is still written once: for NumPy, a GPU thread and these
lanes.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from fastcifar.data.cifar10 import CHANNELS, IMAGE_SIZE
from fastcifar.runtime.simd.function import simd_function
from fastcifar.runtime.simd.memory import load, store
from fastcifar.runtime.simd.vector import FP32, UINT8, UINT32

ROW = IMAGE_SIZE * CHANNELS
FLIPPED = [CHANNELS * x + c for x in reversed(range(IMAGE_SIZE)) for c in range(CHANNELS)]


def row_store(cast: Callable[[Any], Any], *, mirrored: bool) -> Callable[..., None]:
    """A function for compiled code: stores `cast(bits of byte * scale + bias)` for 96 staged bytes.

    `store_row(out, out_start, staged, staged_start, scale, bias)`: out uint16 or uint32 1-D; staged uint8 1-D; both
    starts are positions from which 96 elements lie inside the array (unchecked); scale and bias float32 (96,).
    `mirrored` reverses the order of the 32 pixels. `cast` gets the float32 bits as a `Vector` of uint32.
    """

    def generate(builder, out, out_start, staged, staged_start, scale, bias):
        row = load(builder, staged.at(builder, staged_start), ir.VectorType(UINT8, ROW))
        if mirrored:
            row = row.shuffle(FLIPPED)
        factor, offset = (load(builder, array.address, ir.VectorType(FP32, ROW)) for array in (scale, bias))
        bits = cast((row.to(FP32) * factor + offset).bitcast(UINT32))
        store(builder, out.at(builder, out_start), bits.to(out.element))

    return simd_function(generate)
