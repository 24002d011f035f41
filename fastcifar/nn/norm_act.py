"""Batch norm and activation in one pass over memory, and their gradients in two, on a CPU (arXiv 1502.03167).

Values are (rows, channels): all pixels of all images, the channels a multiple of 16. A row is handled sixteen
channels at a time; sums run in float32 over a few hundred rows and in float64 beyond, a thread's rows in one part each,
so they repeat for the same number of threads.
"""

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np

from fastcifar.nn import activation
from fastcifar.nn.activation import ACTIVATIONS
from fastcifar.runtime import vectors
from fastcifar.runtime.kernel_cache import compiled
from fastcifar.runtime.vectors import ADDRESS, FLOAT, FLOATS, HALF, HALVES, LANES, address, load, operation, store

ROWS_AT_A_TIME = 256
LIMIT = 1.0
"""Of gradients in float16: transformed they are below 67, and times values up to 900 they stay finite. That many such
products in one sum would not; typical gradients are a thousandth of it (`conv_norm_act.TYPICAL`)."""
KINDS = {name: number for number, name in enumerate(ACTIVATIONS)}


class Kernels(NamedTuple):
    """The compiled kernels; see `kernels`."""

    moments: Callable[..., None]
    apply: Callable[..., None]
    gradient_sums: Callable[..., None]
    gradient: Callable[..., None]


def _of_each(kinds: Mapping[str, Any], generate: Callable[..., None]) -> Callable[..., None]:
    """An operation for compiled code, `operation(half, kind, *arguments)`.

    It is `generate(builder, values, functions, *arguments)`, with values HALVES or FLOATS, of the kind of that number.
    """

    def choose(builder, half, kind, *arguments):
        for is_half, values in enumerate((FLOATS, HALVES)):
            for number, functions in enumerate(kinds.values()):
                chosen = builder.and_(
                    builder.icmp_signed("==", half, ADDRESS(is_half)), builder.icmp_signed("==", kind, ADDRESS(number))
                )
                with builder.if_then(chosen):
                    generate(builder, values, functions, *arguments)

    return operation(choose)


def _add_moments(builder, values, functions, z, origin, total, squares):
    away = load(builder, z, values).of(FLOAT) - load(builder, origin)
    store(builder, total, load(builder, total) + away)
    store(builder, squares, load(builder, squares) + away * away)


def _apply(builder, values, functions, z, scale, shift, out):
    act, _ = functions
    store(builder, out, act(load(builder, z, values).of(FLOAT) * load(builder, scale) + load(builder, shift)))


def _inner(builder, functions, gradient, z, scale, shift):
    _, slope = functions
    return load(builder, gradient) * slope(z * load(builder, scale) + load(builder, shift))


def _add_gradients(builder, values, functions, gradient, z, scale, shift, mean, total, product, squares):
    z = load(builder, z, values).of(FLOAT)
    inner = _inner(builder, functions, gradient, z, scale, shift)
    store(builder, total, load(builder, total) + inner)
    store(builder, product, load(builder, product) + inner * (z - load(builder, mean)))
    store(builder, squares, load(builder, squares) + inner * inner)


def _turn_back(builder, values, functions, gradient, z, scale, shift, mean, outer, constant, linear, out):
    z = load(builder, z, values).of(FLOAT)
    inner = _inner(builder, functions, gradient, z, scale, shift)
    away = z - load(builder, mean)
    result = inner * load(builder, outer) + (away * load(builder, linear) + load(builder, constant))
    store(builder, out, result.within(LIMIT).of(HALF) if values == HALVES else result)


add_moments = _of_each({"any": None}, _add_moments)
apply_once, add_gradients, turn_back = (_of_each(ACTIVATIONS, g) for g in (_apply, _add_gradients, _turn_back))


@numba.njit
def move_sums(few, total):
    """Adds float32 sums (k, channels) to float64 ones, and begins them anew."""
    for k in range(few.shape[0]):
        for c in range(few.shape[1]):
            total[k, c] += few[k, c]
            few[k, c] = 0


def _build(source_digest: str, half: bool) -> Kernels:
    size = 2 if half else 4

    def moments(z, origin, parts):
        assert source_digest  # part of the disk cache's key: numba does not notice edits of what a kernel calls
        rows, channels = z.shape
        threads = len(parts)
        for thread in numba.prange(threads):
            parts[thread] = 0
            few = np.zeros((2, channels), np.float32)
            first, last = thread * rows // threads, (thread + 1) * rows // threads
            for start in range(first, last, ROWS_AT_A_TIME):
                for row in range(start, min(start + ROWS_AT_A_TIME, last)):
                    for c in range(0, channels, LANES):
                        add_moments(
                            half, 0, address(z) + size * (channels * row + c), address(origin) + 4 * c,
                            address(few[0]) + 4 * c, address(few[1]) + 4 * c,
                        )  # fmt: skip
                move_sums(few, parts[thread])

    def apply(kind, z, scale, shift, out, threads):
        assert source_digest
        rows, channels = z.shape
        for thread in numba.prange(threads):
            for row in range(thread * rows // threads, (thread + 1) * rows // threads):
                for c in range(0, channels, LANES):
                    place = channels * row + c
                    apply_once(
                        half, kind, address(z) + size * place, address(scale) + 4 * c, address(shift) + 4 * c,
                        address(out) + 4 * place,
                    )  # fmt: skip

    def gradient_sums(kind, gradient, z, scale, shift, mean, parts):
        assert source_digest
        rows, channels = z.shape
        threads = len(parts)
        for thread in numba.prange(threads):
            parts[thread] = 0
            few = np.zeros((3, channels), np.float32)
            first, last = thread * rows // threads, (thread + 1) * rows // threads
            for start in range(first, last, ROWS_AT_A_TIME):
                for row in range(start, min(start + ROWS_AT_A_TIME, last)):
                    for c in range(0, channels, LANES):
                        place = channels * row + c
                        add_gradients(
                            half, kind, address(gradient) + 4 * place, address(z) + size * place,
                            address(scale) + 4 * c, address(shift) + 4 * c, address(mean) + 4 * c,
                            address(few[0]) + 4 * c, address(few[1]) + 4 * c, address(few[2]) + 4 * c,
                        )  # fmt: skip
                move_sums(few, parts[thread])

    def gradient(kind, gradient, z, scale, shift, mean, outer, constant, linear, out, threads):
        assert source_digest
        rows, channels = z.shape
        for thread in numba.prange(threads):
            for row in range(thread * rows // threads, (thread + 1) * rows // threads):
                for c in range(0, channels, LANES):
                    place = channels * row + c
                    turn_back(
                        half, kind, address(gradient) + 4 * place, address(z) + size * place,
                        address(scale) + 4 * c, address(shift) + 4 * c, address(mean) + 4 * c,
                        address(outer) + 4 * c, address(constant) + 4 * c, address(linear) + 4 * c,
                        address(out) + size * place,
                    )  # fmt: skip

    return Kernels(
        *(compiled(kernel, parallel=True, nogil=True) for kernel in (moments, apply, gradient_sums, gradient))
    )


@cache
def kernels(half: bool) -> Kernels:
    """The compiled kernels; the first call of each compiles, or loads from numba's disk cache.

    kind is an activation's number in `KINDS`; z, gradient and out are float32 (rows, channels), C-contiguous, the rest
    float32 (channels,), and parts float64 (threads, 2, channels), written; nothing is checked. With `half` z is
    float16, handed over as int16, and so is what `gradient` leaves, of which nothing is beyond LIMIT.
    `moments(z, origin, parts)`: sums over a thread's rows of z - origin and of its square.
    `apply(kind, z, scale, shift, out, threads)`: out = act(z * scale + shift).
    `gradient_sums(kind, gradient, z, scale, shift, mean, parts)`: sums of inner = gradient * act'(z * scale + shift),
    of inner * (z - mean) and of inner * inner; parts (threads, 3, channels).
    `gradient(kind, gradient, z, scale, shift, mean, outer, constant, linear, out, threads)`: out = inner * outer +
    constant + (z - mean) * linear.
    """
    sources = (Path(module.__file__ or "") for module in (activation, vectors))
    return _build(hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest(), half)
