"""Batch norm and activation on a CPU: two passes over memory forward, two for the gradients (arXiv 1502.03167).

Arrays are (rows, channels): the pixels of all images, with a multiple of 16 channels, which is processed 16 at a time.
Sums run in float32 over up to 256 rows and in float64 beyond. Each thread sums one part of the rows, so the same number
of threads gives the same bits.
"""

from collections.abc import Callable
from functools import cache
from itertools import product
from typing import NamedTuple

import numba
import numpy as np

from fastcifar.nn import activation
from fastcifar.nn.activation import ACTIVATIONS
from fastcifar.runtime.kernel_cache import compiled, source_digest
from fastcifar.runtime.simd import function, memory, vector
from fastcifar.runtime.simd.function import variants
from fastcifar.runtime.simd.memory import address, itemsize, load, store
from fastcifar.runtime.simd.vector import FP16, FP16X16, FP32, FP32X16, LANES

FP32_ROWS = 256
"""Rows that are summed in float32."""
FP16_LIMIT = 1.0
"""Float16 gradients are clamped to [-1, 1]. Transformed they are then below 67, and products with values up to 900 are
finite. Sums of many such products would not be, but typical gradients are 1/1024 (`conv_norm_act.FP16_TYPICAL`)."""
ACTIVATION_INDEX = {name: index for index, name in enumerate(ACTIVATIONS)}
FUNCTIONS = tuple(ACTIVATIONS.values())


def _add_moments(builder, fp16, z, origin, total, squares):
    distance = _load_z(builder, fp16, z) - load(builder, origin)
    store(builder, total, load(builder, total) + distance)
    store(builder, squares, load(builder, squares) + distance * distance)


def _apply(builder, fp16, index, z, scale, shift, out):
    act, _ = FUNCTIONS[index]
    store(builder, out, act(_load_z(builder, fp16, z) * load(builder, scale) + load(builder, shift)))


def _add_gradients(builder, fp16, index, gradient, z, scale, shift, mean, total, products, squares):
    z = _load_z(builder, fp16, z)
    inner = _inner_gradient(builder, index, gradient, z, scale, shift)
    store(builder, total, load(builder, total) + inner)
    store(builder, products, load(builder, products) + inner * (z - load(builder, mean)))
    store(builder, squares, load(builder, squares) + inner * inner)


def _z_gradient(builder, fp16, index, gradient, z, scale, shift, mean, outer, constant, linear, out):
    z = _load_z(builder, fp16, z)
    inner = _inner_gradient(builder, index, gradient, z, scale, shift)
    centred = z - load(builder, mean)
    result = inner * load(builder, outer) + (centred * load(builder, linear) + load(builder, constant))
    store(builder, out, result.clamp(FP16_LIMIT).to(FP16) if fp16 else result)


def _load_z(builder, fp16, z):
    return load(builder, z, FP16X16 if fp16 else FP32X16).to(FP32)


def _inner_gradient(builder, index, gradient, z, scale, shift):
    _, slope = FUNCTIONS[index]
    return load(builder, gradient) * slope(z * load(builder, scale) + load(builder, shift))


_CASES = list(product((0, 1), range(len(FUNCTIONS))))  # (fp16, activation)
add_moments = variants([(0,), (1,)], _add_moments)
apply_norm_act, add_gradients, z_gradient = (variants(_CASES, g) for g in (_apply, _add_gradients, _z_gradient))


@numba.njit
def flush(sums, totals):
    """Adds float32 sums (k, channels) to float64 totals and resets them to zero."""
    for k in range(sums.shape[0]):
        for c in range(sums.shape[1]):
            totals[k, c] += sums[k, c]
            sums[k, c] = 0


class Kernels(NamedTuple):
    """The compiled kernels; see the functions that build them.

    z and gradients are (rows, channels), C-contiguous; per-channel arguments are float32 (channels,). z is float32, or
    with fp16 float16 handed over as int16. `index` is that of the activation, `ACTIVATION_INDEX`. Nothing is checked.
    """

    moments: Callable[..., None]
    apply: Callable[..., None]
    gradient_sums: Callable[..., None]
    gradient: Callable[..., None]


@cache
def kernels(fp16: bool) -> Kernels:
    """The compiled kernels; the first call of each compiles, or loads from numba's disk cache."""
    digest = source_digest(activation, function, memory, vector)
    builders = (_moments_kernel, _apply_kernel, _gradient_sums_kernel, _gradient_kernel)
    return Kernels(*(compiled(build(digest, fp16), parallel=True, nogil=True) for build in builders))


def _moments_kernel(digest: str, fp16: bool) -> Callable[..., None]:
    def moments(z, origin, parts):
        """Sums of z - origin and of its square over a thread's rows, into float64 parts (threads, 2, channels)."""
        assert digest  # part of the disk cache's key: numba does not notice edits of what a kernel calls
        rows, channels = z.shape
        threads = len(parts)
        for thread in numba.prange(threads):
            parts[thread] = 0
            sums = np.zeros((2, channels), np.float32)
            first, last = thread * rows // threads, (thread + 1) * rows // threads
            for start in range(first, last, FP32_ROWS):
                for row in range(start, min(start + FP32_ROWS, last)):
                    for c in range(0, channels, LANES):
                        add_moments(
                            fp16, address(z) + itemsize(z) * (channels * row + c), address(origin) + 4 * c,
                            address(sums[0]) + 4 * c, address(sums[1]) + 4 * c,
                        )  # fmt: skip
                flush(sums, parts[thread])

    return moments


def _apply_kernel(digest: str, fp16: bool) -> Callable[..., None]:
    def apply(index, z, scale, shift, out, threads):
        """out = act(z * scale + shift), float32 (rows, channels)."""
        assert digest
        rows, channels = z.shape
        for thread in numba.prange(threads):
            for row in range(thread * rows // threads, (thread + 1) * rows // threads):
                for c in range(0, channels, LANES):
                    place = channels * row + c
                    apply_norm_act(
                        fp16, index, address(z) + itemsize(z) * place, address(scale) + 4 * c, address(shift) + 4 * c,
                        address(out) + 4 * place,
                    )  # fmt: skip

    return apply


def _gradient_sums_kernel(digest: str, fp16: bool) -> Callable[..., None]:
    def gradient_sums(index, gradient, z, scale, shift, mean, parts):
        """Sums over a thread's rows, into float64 parts (threads, 3, channels), from the float32 output gradient.

        They are of inner = gradient * act'(z * scale + shift), inner * (z - mean) and inner * inner.
        """
        assert digest
        rows, channels = z.shape
        threads = len(parts)
        for thread in numba.prange(threads):
            parts[thread] = 0
            sums = np.zeros((3, channels), np.float32)
            first, last = thread * rows // threads, (thread + 1) * rows // threads
            for start in range(first, last, FP32_ROWS):
                for row in range(start, min(start + FP32_ROWS, last)):
                    for c in range(0, channels, LANES):
                        place = channels * row + c
                        add_gradients(
                            fp16, index, address(gradient) + 4 * place, address(z) + itemsize(z) * place,
                            address(scale) + 4 * c, address(shift) + 4 * c, address(mean) + 4 * c,
                            address(sums[0]) + 4 * c, address(sums[1]) + 4 * c, address(sums[2]) + 4 * c,
                        )  # fmt: skip
                flush(sums, parts[thread])

    return gradient_sums


def _gradient_kernel(digest: str, fp16: bool) -> Callable[..., None]:
    def gradient(index, gradient, z, scale, shift, mean, outer, constant, linear, out, threads):
        """out = inner * outer + constant + (z - mean) * linear, with inner as in `gradient_sums`.

        out (rows, channels) has the type of z; float16 values are clamped to FP16_LIMIT.
        """
        assert digest
        rows, channels = z.shape
        for thread in numba.prange(threads):
            for row in range(thread * rows // threads, (thread + 1) * rows // threads):
                for c in range(0, channels, LANES):
                    place = channels * row + c
                    z_gradient(
                        fp16, index, address(gradient) + 4 * place, address(z) + itemsize(z) * place,
                        address(scale) + 4 * c, address(shift) + 4 * c, address(mean) + 4 * c,
                        address(outer) + 4 * c, address(constant) + 4 * c, address(linear) + 4 * c,
                        address(out) + itemsize(z) * place,
                    )  # fmt: skip

    return gradient
