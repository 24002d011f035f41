"""The fused kernel for GPUs: gather, pad, crop, flip, resize, normalise, cut out and cast in one pass over an image.

A block produces one image. Its 192 threads load the 3072 bytes into shared memory, 16 each; then every thread produces
16 bytes of the output at a time. The arithmetic, integers and one fused multiply-add, is the same as on the CPU, so the
bits equal those of `reference.py`.

What changes from step to step, and the seed, are read from GPU memory, so one captured launch serves several runs.
Every function the kernel calls is inlined before numba types it, so that compiling to PTX needs no driver.
`launch_cuda.py` loads and launches it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastcifar import rng
from fastcifar.augment import pixel
from fastcifar.augment.cuda_intrinsics import float_bits, load16, store16
from fastcifar.augment.launch_cuda import ALTERNATING, NONE, RANDOM, THREADS
from fastcifar.augment.pixel import BFLOAT16, FLOAT16, FLOAT32
from fastcifar.augment.transform_device import EPOCH, POSITION, SEED
from fastcifar.data.cifar10 import CHANNELS, IMAGE_BYTES, IMAGE_SIZE
from fastcifar.rng import Purpose
from fastcifar.runtime.numba_cuda import import_numba_cuda

WORDS = IMAGE_BYTES // 8  # 64-bit words of an image
AUGMENT, FLIP = np.uint64(Purpose.AUGMENT), np.uint64(Purpose.FLIP)
ZERO, ONE, TWO, THIRTY_TWO = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(32)
LOW_HALF, LOW_BYTE = np.uint64(0xFFFFFFFF), np.uint64(0xFF)

cuda = import_numba_cuda()
inlined = cuda.jit(device=True, inline="always")
hash64 = inlined(rng.hash64)


@inlined
def _unchanged(bits):
    return bits


CASTS = {FLOAT32: _unchanged, BFLOAT16: inlined(pixel.bfloat16_bits), FLOAT16: inlined(pixel.float16_bits)}


@inlined
def _key(seed, purpose, epoch):
    """As `rng.stream_key`."""
    return hash64(hash64(hash64(ZERO, seed), purpose), epoch)


@inlined
def _below(hashed, shift, limit):
    """A draw in [0, limit) from 32 of the 64 hashed bits."""
    return np.int32((((hashed >> shift) & LOW_HALF) * np.uint64(limit)) >> THIRTY_TWO)


@inlined
def _draw(geometry, seed, epoch, sample, pad, crop_size, flip, cutout):
    """Draws one image's augmentation into `geometry`: shift_y, shift_x, flipped, top and left of the hole."""
    key = _key(seed, AUGMENT, epoch)
    crop, hole = hash64(key, sample * TWO), hash64(key, sample * TWO + ONE)
    geometry[0] = _below(crop, ZERO, 2 * pad + 1 + IMAGE_SIZE - crop_size) - pad
    geometry[1] = _below(crop, THIRTY_TWO, 2 * pad + 1 + IMAGE_SIZE - crop_size) - pad
    geometry[3] = _below(hole, ZERO, IMAGE_SIZE) - cutout // 2
    geometry[4] = _below(hole, THIRTY_TWO, IMAGE_SIZE) - cutout // 2
    coins = _key(seed, FLIP, epoch + ONE if flip == RANDOM else ZERO)
    parity = epoch & ONE if flip == ALTERNATING else ZERO
    geometry[2] = 1 if flip != NONE and (hash64(coins, sample) + parity) & ONE == ONE else 0


@inlined
def _reflected(i):
    """Index inside the image for an index up to 31 outside of it; the border is not repeated."""
    return np.int32(-i if i < 0 else (2 * (IMAGE_SIZE - 1) - i if i >= IMAGE_SIZE else i))


@inlined
def _cropped(tile, y, x, channel, crop_size, shift_y, shift_x, flipped, reflect):
    """A byte of the padded, cropped and flipped image at (y, x); `tile` is the stored image."""
    y, x = np.int32(y + shift_y), np.int32((crop_size - 1 - x if flipped else x) + shift_x)
    inside = 0 <= y < IMAGE_SIZE and 0 <= x < IMAGE_SIZE
    j = np.int32((_reflected(y) * IMAGE_SIZE + _reflected(x)) * CHANNELS + channel)
    byte = np.int32((tile[j >> 3] >> np.uint64((j & 7) << 3)) & LOW_BYTE)
    return byte if inside or reflect else np.int32(0)


@inlined
def _average(tile, y, x, channel, size, shift_y, shift_x, flipped, reflect):
    """Mean of the area that the output pixel (y, x) covers, rounded half up.

    In units of 1 / (32 * size) of the side an input row spans `size` and an output row 32, so the weights are integers.
    """
    total = np.int32(512)
    top, left = IMAGE_SIZE * y, IMAGE_SIZE * x
    bottom, right = top + IMAGE_SIZE, left + IMAGE_SIZE
    for row in range(np.uint32(top) // np.uint32(size), np.uint32(bottom - 1) // np.uint32(size) + 1):
        height = min(bottom, size * (row + 1)) - max(top, size * row)
        for column in range(np.uint32(left) // np.uint32(size), np.uint32(right - 1) // np.uint32(size) + 1):
            width = min(right, size * (column + 1)) - max(left, size * column)
            i, j = np.int32(row), np.int32(column)
            byte = _cropped(tile, i, j, channel, IMAGE_SIZE, shift_y, shift_x, flipped, reflect)
            total += np.int32(height * width) * byte
    return np.int32(total >> 10)


@inlined
def _load(thread, image, tile, geometry, stored, indices, sample_ids, state, pad, crop_size, flip, cutout):
    """A thread's load: 16 bytes of the stored image into `tile`. Thread 0 also draws the augmentation."""
    position = state[POSITION] + image
    low, high = load16(stored, indices[position] * WORDS + 2 * thread)
    tile[2 * thread], tile[2 * thread + 1] = low, high
    if thread == 0:  # hashing costs as much as a few pixels, so one thread does it for the block
        epoch, seed, sample = np.uint64(state[EPOCH]), np.uint64(state[SEED]), np.uint64(sample_ids[position])
        _draw(geometry, seed, epoch, sample, pad, crop_size, flip, cutout)


def _build_store(dtype: int, wide: bool) -> Any:
    """A thread's computation and stores for an output dtype, 16 bytes at a time (`wide`) or one value at a time."""
    per_word = 2 if dtype == FLOAT32 else 4
    bits_each = 64 // per_word
    together = 2 * per_word if wide else 1
    cast = CASTS[dtype]

    @inlined
    def store(thread, image, tile, geometry, reflect, crop_size, cutout, size, scale_and_bias, out):
        shift_y, shift_x, flipped, top, left = geometry[0], geometry[1], geometry[2] != 0, geometry[3], geometry[4]
        row_length = np.int32(CHANNELS * size)
        groups = np.int32(np.uint32(row_length * size) // np.uint32(together))
        for group in range(thread, groups, THREADS):
            first = np.int32(group * together)
            y = np.int32(np.uint32(first) // np.uint32(row_length))
            x = np.int32(np.uint32(first - y * row_length) // np.uint32(CHANNELS))
            channel = np.int32(first - y * row_length - CHANNELS * x)
            low, high = ZERO, ZERO
            for k in range(together):
                if size == crop_size:
                    byte = _cropped(tile, y, x, channel, crop_size, shift_y, shift_x, flipped, reflect)
                else:
                    byte = _average(tile, y, x, channel, size, shift_y, shift_x, flipped, reflect)
                value = np.float32(byte) * scale_and_bias[channel] + scale_and_bias[CHANNELS + channel]
                # a pixel is cut out if its centre, (2 y + 1) * 32 / (2 size), lies in the hole
                in_rows = 2 * size * top <= (2 * y + 1) * IMAGE_SIZE < 2 * size * (top + cutout)
                in_columns = 2 * size * left <= (2 * x + 1) * IMAGE_SIZE < 2 * size * (left + cutout)
                bits = ZERO if in_rows and in_columns else np.uint64(cast(float_bits(value)))
                if k < per_word:
                    low |= bits << np.uint64(bits_each * k)
                else:
                    high |= bits << np.uint64(bits_each * (k - per_word))
                channel = np.int32(channel + 1)
                if channel == CHANNELS:
                    channel, x = np.int32(0), np.int32(x + 1)
                    if x == size:
                        x, y = np.int32(0), np.int32(y + 1)
            if wide:
                store16(out, (image * groups + group) * 2, low, high)
            else:
                out[image * groups + group] = low

    return store


def build(dtype: int, wide: bool) -> Callable[..., None]:
    """The kernel, not compiled; launch it with one block of THREADS per image."""
    store = _build_store(dtype, wide)

    def augment(
        stored,  # uint64 (n * 384,): the images, at an address that is a multiple of 16
        indices, sample_ids,  # int64 (at least b after the position,): positions in `stored`; data-set indices
        state,  # int64 (3,): epoch, position in `indices` and `sample_ids` of the first image, seed (bits of uint64)
        scale_and_bias,  # float32 (6,): three of each
        out,  # b * 3 * size**2 values: uint64, at a multiple of 16 bytes, if `wide`; else bits as uint32 or uint16
        pad, reflect,  # 0 to 16 pixels on each side; 1: by reflection, 0: with zeros
        crop_size,  # `size`, or 32 for area averages
        flip, cutout, size,  # one of FLIPS; side of the hole in pixels at 32, or 0; side of the output
    ):  # fmt: skip
        tile = cuda.shared.array(WORDS, np.uint64)
        geometry = cuda.shared.array(5, np.int32)
        thread, image = np.int32(cuda.threadIdx.x), cuda.blockIdx.x
        _load(thread, image, tile, geometry, stored, indices, sample_ids, state, pad, crop_size, flip, cutout)
        cuda.syncthreads()
        store(thread, image, tile, geometry, reflect, crop_size, cutout, size, scale_and_bias, out)

    return augment


def signature(dtype: int, wide: bool) -> tuple[Any, ...]:
    """The numba types of the kernel's parameters: plain pointers for the arrays, and int32."""
    from numba import types

    word = types.uint64 if wide else types.uint32 if dtype == FLOAT32 else types.uint16
    items = (types.uint64, types.int64, types.int64, types.int64, types.float32, word)
    return (*map(types.CPointer, items), *[types.int32] * 6)
