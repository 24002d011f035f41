"""The fused kernel for GPUs: gather, pad, crop, flip, resize, normalise, cut out and cast in one pass over an image.

A block makes one image: its 192 threads load the 3072 bytes into shared memory, 16 each, then every thread makes 16
bytes of the output at a time. The arithmetic is integers and one fused multiply-add, the same as on the CPU, so the
bits are those of `reference.py`.

Everything that changes from step to step is read from GPU memory, so one captured launch serves a whole training.
Every function the kernel calls is inlined before numba types it, so that `ptx` needs no driver.
"""

import warnings
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from numba import cuda as numba_cuda
from numba import types
from numba.core.errors import NumbaPerformanceWarning
from torch import Tensor

from fastcifar import rng as draws
from fastcifar.augment import pixel
from fastcifar.augment.cuda_words import float_bits, load16, store16
from fastcifar.augment.transform import crop_side
from fastcifar.config import AugmentConfig
from fastcifar.rng import Purpose

SIDE, CHANNELS = 32, 3
WORDS = SIDE * SIDE * CHANNELS // 8  # 64-bit words of an image
THREADS = WORDS // 2
FLOAT32, BFLOAT16, FLOAT16 = 0, 1, 2
KINDS = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.float16: FLOAT16}
NONE, RANDOM, ALTERNATING = 0, 1, 2
FLIPS = {"none": NONE, "random": RANDOM, "alternating": ALTERNATING}
AUGMENT, FLIP = np.uint64(Purpose.AUGMENT), np.uint64(Purpose.FLIP)
ZERO, ONE, TWO, THIRTY_TWO = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(32)
LOW_HALF, LOW_BYTE = np.uint64(0xFFFFFFFF), np.uint64(0xFF)

cuda: Any = numba_cuda  # its annotations are those of the host, which say little about kernels
inlined = cuda.jit(device=True, inline="always")
hash64 = inlined(draws.hash64)


@inlined
def _unchanged(bits):
    return bits


CASTS = {FLOAT32: _unchanged, BFLOAT16: inlined(pixel.bfloat16_bits), FLOAT16: inlined(pixel.float16_bits)}


@inlined
def _key(seed, purpose, epoch):
    """As draws.stream_key."""
    return hash64(hash64(hash64(ZERO, seed), purpose), epoch)


@inlined
def _below(hashed, shift, limit):
    """A draw in [0, limit) from 32 of the 64 hashed bits."""
    return np.int32((((hashed >> shift) & LOW_HALF) * np.uint64(limit)) >> THIRTY_TWO)


@inlined
def _draw(drawn, seed, epoch, sample, pad, window, flip, cutout):
    """What happens to one image, into `drawn`: shift_y, shift_x, flipped, top and left of the hole."""
    key = _key(seed, AUGMENT, epoch)
    crop, hole = hash64(key, sample * TWO), hash64(key, sample * TWO + ONE)
    drawn[0] = _below(crop, ZERO, 2 * pad + 1 + SIDE - window) - pad
    drawn[1] = _below(crop, THIRTY_TWO, 2 * pad + 1 + SIDE - window) - pad
    drawn[3] = _below(hole, ZERO, SIDE) - cutout // 2
    drawn[4] = _below(hole, THIRTY_TWO, SIDE) - cutout // 2
    coins = _key(seed, FLIP, epoch + ONE if flip == RANDOM else ZERO)
    parity = epoch & ONE if flip == ALTERNATING else ZERO
    drawn[2] = 1 if flip != NONE and (hash64(coins, sample) + parity) & ONE == ONE else 0


@inlined
def _mirrored(i):
    """Index inside the image for one up to 31 outside of it: reflection that does not repeat the border."""
    return np.int32(-i if i < 0 else (2 * (SIDE - 1) - i if i >= SIDE else i))


@inlined
def _cropped(tile, y, x, channel, window, shift_y, shift_x, flipped, reflect):
    """A byte of the padded image, cropped to `window` pixels and flipped, at (y, x); `tile` is the stored image."""
    y, x = np.int32(y + shift_y), np.int32((window - 1 - x if flipped else x) + shift_x)
    inside = 0 <= y < SIDE and 0 <= x < SIDE
    j = np.int32((_mirrored(y) * SIDE + _mirrored(x)) * CHANNELS + channel)
    byte = np.int32((tile[j >> 3] >> np.uint64((j & 7) << 3)) & LOW_BYTE)
    return byte if inside or reflect else np.int32(0)


@inlined
def _average(tile, y, x, channel, size, shift_y, shift_x, flipped, reflect):
    """Mean, half up, of the area that the output pixel (y, x) covers.

    In units of 1 / (32 * size) of the side an input row spans `size` and an output row 32, so the weights are integers.
    """
    total = np.int32(512)
    for row in range(np.uint32(SIDE * y) // np.uint32(size), np.uint32(SIDE * y + SIDE - 1) // np.uint32(size) + 1):
        height = min(SIDE * (y + 1), size * (row + 1)) - max(SIDE * y, size * row)
        for column in range(
            np.uint32(SIDE * x) // np.uint32(size), np.uint32(SIDE * x + SIDE - 1) // np.uint32(size) + 1
        ):
            width = min(SIDE * (x + 1), size * (column + 1)) - max(SIDE * x, size * column)
            byte = _cropped(tile, np.int32(row), np.int32(column), channel, SIDE, shift_y, shift_x, flipped, reflect)
            total += np.int32(height * width) * byte
    return np.int32(total >> 10)


@inlined
def _load(thread, position, tile, drawn, stored, rows, samples, state, seed, pad, window, flip, cutout):
    """A thread's part of the first half: 16 bytes of the stored image into `tile`, by thread 0 the draws as well."""
    low, high = load16(stored, rows[position] * WORDS + 2 * thread)
    tile[2 * thread], tile[2 * thread + 1] = low, high
    if thread == 0:  # hashing costs as much as a few pixels, so one thread does it for all
        _draw(drawn, seed, np.uint64(state[0]), np.uint64(samples[position]), pad, window, flip, cutout)


def _maker(kind: int, wide: bool) -> Any:
    """A thread's part of the second half, for one output type with stores of 16 bytes (`wide`) or of one value."""
    per_word = 2 if kind == FLOAT32 else 4
    bits_each = 64 // per_word
    together = 2 * per_word if wide else 1
    cast = CASTS[kind]

    @inlined
    def make(thread, image, tile, drawn, reflect, window, cutout, size, scale_and_bias, out):
        shift_y, shift_x, flipped, top, left = drawn[0], drawn[1], drawn[2] != 0, drawn[3], drawn[4]
        row_length = np.int32(CHANNELS * size)
        groups = np.int32(np.uint32(row_length * size) // np.uint32(together))
        for group in range(thread, groups, THREADS):
            first = np.int32(group * together)
            y = np.int32(np.uint32(first) // np.uint32(row_length))
            x = np.int32(np.uint32(first - y * row_length) // np.uint32(CHANNELS))
            channel = np.int32(first - y * row_length - CHANNELS * x)
            low, high = ZERO, ZERO
            for k in range(together):
                if size == window:
                    byte = _cropped(tile, y, x, channel, window, shift_y, shift_x, flipped, reflect)
                else:
                    byte = _average(tile, y, x, channel, size, shift_y, shift_x, flipped, reflect)
                value = np.float32(byte) * scale_and_bias[channel] + scale_and_bias[CHANNELS + channel]
                # a pixel is cut out where its centre, (2 y + 1) * 32 / (2 size), lies in the hole
                in_rows = 2 * size * top <= (2 * y + 1) * SIDE < 2 * size * (top + cutout)
                in_columns = 2 * size * left <= (2 * x + 1) * SIDE < 2 * size * (left + cutout)
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

    return make


def _build(kind: int, wide: bool) -> Callable[..., None]:
    make = _maker(kind, wide)

    def augment(stored, rows, samples, state, seed, pad, reflect, window, flip, cutout, size, scale_and_bias, out):
        tile = cuda.shared.array(WORDS, np.uint64)
        drawn = cuda.shared.array(5, np.int32)
        thread, image = np.int32(cuda.threadIdx.x), cuda.blockIdx.x
        _load(thread, state[1] + image, tile, drawn, stored, rows, samples, state, seed, pad, window, flip, cutout)
        cuda.syncthreads()
        make(thread, image, tile, drawn, reflect, window, cutout, size, scale_and_bias, out)

    return augment


@cache
def kernel(kind: int, wide: bool) -> Any:
    """The kernel, compiled at its first launch, in blocks of THREADS, as many as there are images in the batch.

    Arguments: stored uint64 (n * 384,), at an address that is a multiple of 16; rows and samples int64 (at least
    state[1] + b,), positions in `stored` and the data-set indices that key the draws; state int64 (2,), the epoch and
    the position in `rows` and `samples` of the first image; seed uint64; pad int32; reflect bool; window int32, the
    crop's side: `size`, or 32 for area averages; flip int32, one of FLIPS; cutout and size int32; scale_and_bias
    float32 (6,); out uint64 (b * 3 * size**2 * itemsize / 8,) if `wide`, at an address that is a multiple of 16, else
    the bit patterns as uint16 or uint32 (b * 3 * size**2,).
    """
    return cuda.jit(_build(kind, wide))


def is_wide(kind: int, size: int) -> bool:
    """Whether an image is a multiple of 16 bytes, so that it can be stored 16 bytes at a time."""
    return CHANNELS * size * size * (4 if kind == FLOAT32 else 2) % 16 == 0


@lru_cache(maxsize=64)
def _configured(kind: int, wide: bool, blocks: int, stream: int) -> Any:
    # cached, because numba makes a new stream object and a new configuration each time, which costs more than a launch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumbaPerformanceWarning)  # numba's advice against small batches
        return kernel(kind, wide)[blocks, THREADS, cuda.external_stream(stream)]


def launch(
    out: Tensor, images: Tensor, rows: Tensor, samples: Tensor, state: Tensor, scale_and_bias: Tensor, *,
    config: AugmentConfig, seed: int,
) -> None:  # fmt: skip
    """Puts the kernel on torch's current stream; allocates nothing, waits for nothing, and can be captured.

    CUDA tensors, all C-contiguous: `out` (b, size, size, 3) in float32, bfloat16 or float16; `images` uint8 (n, 32, 32,
    3) at an address that is a multiple of 16; `state` int64 (2,), the epoch and the position in `rows` of the first
    image; `rows` and `samples` int64 (at least that position + b,), see `kernel`; `scale_and_bias` float32 (6,).
    A row outside [0, n) is read all the same: values in GPU memory cannot be checked without waiting for it.
    """
    count, size = out.shape[:2]
    if not count:
        return
    kind = KINDS[out.dtype]
    wide = is_wide(kind, size)
    words = torch.uint64 if wide else (torch.uint32 if kind == FLOAT32 else torch.uint16)
    tensors = (images.view(-1).view(torch.uint64), rows, samples, state, scale_and_bias, out.view(-1).view(words))
    stored, rows_, samples_, state_, normalise, bits = (cuda.as_cuda_array(tensor, sync=False) for tensor in tensors)
    _configured(kind, wide, count, torch.cuda.current_stream().cuda_stream)(
        stored, rows_, samples_, state_,
        np.uint64(seed), np.int32(config.pad), config.pad_mode == "reflect", np.int32(crop_side(config, size)),
        np.int32(FLIPS[config.flip]), np.int32(config.cutout), np.int32(size), normalise, bits,
    )  # fmt: skip


def ptx(capability: tuple[int, int], kind: int = BFLOAT16, wide: bool = True) -> str:
    """The kernel in PTX for a compute capability such as (9, 0); needs neither a GPU nor its driver."""
    narrow = types.uint32 if kind == FLOAT32 else types.uint16
    index, number = types.int64[::1], types.int32
    signature = (
        types.uint64[::1], index, index, index, types.uint64, number, types.boolean, number, number,
        number, number, types.float32[::1], types.uint64[::1] if wide else narrow[::1],
    )  # fmt: skip
    return cuda.compile_ptx(_build(kind, wide), signature, cc=capability)[0]
