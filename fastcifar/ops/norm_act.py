"""Batch norm and activation in one pass over memory, and their gradients in two, on a CPU (arXiv 1502.03167).

Values are (rows, channels): all pixels of all pictures, the channels a multiple of 16. A row is handled sixteen
channels at a time; sums run in float32 over a few hundred rows and in float64 beyond, a thread's rows in one part each,
so they repeat for the same number of threads.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np

from fastcifar.kernel_cache import compiled
from fastcifar.ops import activation, vectors
from fastcifar.ops.activation import ACTIVATIONS
from fastcifar.ops.vectors import ADDRESS, BYTES, address, load, operation, store

ROWS_AT_A_TIME = 256
KINDS = {name: number for number, name in enumerate(ACTIVATIONS)}


class Kernels(NamedTuple):
    """The compiled kernels; see `kernels`."""

    moments: Callable[..., None]
    apply: Callable[..., None]
    gradient_sums: Callable[..., None]
    gradient: Callable[..., None]


def _add_moments(builder, z, origin, total, squares):
    away = load(builder, z) - load(builder, origin)
    store(builder, total, load(builder, total) + away)
    store(builder, squares, load(builder, squares) + away * away)


add_moments: Callable[..., None] = operation(_add_moments)


def _normed(builder, z, scale, shift):
    return load(builder, z) * load(builder, scale) + load(builder, shift)


def _for_each_kind(generate: Callable[..., None]) -> Callable[..., None]:
    """`generate(builder, act, slope, *arguments)` of the activation whose number the operation is told first."""

    def switch(builder, kind, *arguments):
        for number, functions in enumerate(ACTIVATIONS.values()):
            with builder.if_then(builder.icmp_signed("==", kind, ADDRESS(number))):
                generate(builder, *functions, *arguments)

    return operation(switch)


def _apply(builder, act, slope, z, scale, shift, out):
    store(builder, out, act(_normed(builder, z, scale, shift)))


def _add_gradients(builder, act, slope, gradient, z, scale, shift, mean, total, product, squares):
    inner = load(builder, gradient) * slope(_normed(builder, z, scale, shift))
    store(builder, total, load(builder, total) + inner)
    store(builder, product, load(builder, product) + inner * (load(builder, z) - load(builder, mean)))
    store(builder, squares, load(builder, squares) + inner * inner)


def _turn_back(builder, act, slope, gradient, z, scale, shift, mean, outer, constant, linear, out):
    inner = load(builder, gradient) * slope(_normed(builder, z, scale, shift))
    away = load(builder, z) - load(builder, mean)
    store(builder, out, inner * load(builder, outer) + (away * load(builder, linear) + load(builder, constant)))


apply_once, add_gradients, turn_back = (_for_each_kind(generate) for generate in (_apply, _add_gradients, _turn_back))


@numba.njit
def move_sums(few, total):
    """Adds float32 sums (k, channels) to float64 ones, and begins them anew."""
    for k in range(few.shape[0]):
        for c in range(few.shape[1]):
            total[k, c] += few[k, c]
            few[k, c] = 0


def _build(source_digest: str) -> Kernels:
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
                    for c in range(0, 4 * channels, BYTES):
                        add_moments(
                            address(z) + 4 * channels * row + c, address(origin) + c,
                            address(few) + c, address(few) + 4 * channels + c,
                        )  # fmt: skip
                move_sums(few, parts[thread])

    def apply(kind, z, scale, shift, out, threads):
        assert source_digest
        rows, channels = z.shape
        for thread in numba.prange(threads):
            for row in range(thread * rows // threads, (thread + 1) * rows // threads):
                place = 4 * channels * row
                for c in range(0, 4 * channels, BYTES):
                    apply_once(
                        kind, address(z) + place + c, address(scale) + c, address(shift) + c, address(out) + place + c
                    )

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
                    place = 4 * channels * row
                    for c in range(0, 4 * channels, BYTES):
                        add_gradients(
                            kind,
                            address(gradient) + place + c,
                            address(z) + place + c,
                            address(scale) + c,
                            address(shift) + c,
                            address(mean) + c,
                            address(few) + c,
                            address(few) + 4 * channels + c,
                            address(few) + 8 * channels + c,
                        )
                move_sums(few, parts[thread])

    def gradient(kind, gradient, z, scale, shift, mean, outer, constant, linear, out, threads):
        assert source_digest
        rows, channels = z.shape
        for thread in numba.prange(threads):
            for row in range(thread * rows // threads, (thread + 1) * rows // threads):
                place = 4 * channels * row
                for c in range(0, 4 * channels, BYTES):
                    turn_back(
                        kind,
                        address(gradient) + place + c,
                        address(z) + place + c,
                        address(scale) + c,
                        address(shift) + c,
                        address(mean) + c,
                        address(outer) + c,
                        address(constant) + c,
                        address(linear) + c,
                        address(out) + place + c,
                    )

    return Kernels(
        *(compiled(kernel, parallel=True, nogil=True) for kernel in (moments, apply, gradient_sums, gradient))
    )


@cache
def kernels() -> Kernels:
    """The compiled kernels; the first call of each compiles, or loads from numba's disk cache.

    kind is an activation's number in `KINDS`; z, gradient and out are float32 (rows, channels), C-contiguous, the rest
    float32 (channels,), and parts float64 (threads, 2, channels), written; nothing is checked.
    `moments(z, origin, parts)`: sums over a thread's rows of z - origin and of its square.
    `apply(kind, z, scale, shift, out, threads)`: out = act(z * scale + shift).
    `gradient_sums(kind, gradient, z, scale, shift, mean, parts)`: sums of inner = gradient * act'(z * scale + shift),
    of inner * (z - mean) and of inner * inner; parts (threads, 3, channels).
    `gradient(kind, gradient, z, scale, shift, mean, outer, constant, linear, out, threads)`: out = inner * outer +
    constant + (z - mean) * linear.
    """
    sources = (Path(module.__file__ or "") for module in (activation, vectors))
    return _build(hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest())
