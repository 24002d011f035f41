"""Run by test_kernel_cuda.py: the GPU's kernel as numba types it, compiled for the CPU, against the reference.

The simulator computes with NumPy's types, and numba's differ: it makes a uint64 of two uint32, so what wraps around
there need not wrap around here. For this numba.cuda is replaced before the kernel is imported, and a block's threads
run one after the other: all up to the barrier, then all from there on.
"""

import itertools
import sys
from types import ModuleType
from typing import Any

import numba
import numpy as np
from numba import extending


def stand_in() -> None:
    """Puts a module in the place of numba.cuda whose functions are compiled for the CPU."""
    fake: Any = ModuleType("numba.cuda")
    fake.jit = lambda device, inline: numba.njit(inline=inline)
    sys.modules["numba.cuda"] = numba.cuda = fake  # type: ignore[attr-defined]
    sys.modules["numba.cuda.extending"] = extending


stand_in()

from fastcifar.augment import kernel_cuda, pixel, reference  # noqa: E402
from fastcifar.augment.transform import crop_side  # noqa: E402
from fastcifar.config import AugmentConfig  # noqa: E402

DTYPES = ("float32", "bfloat16", "float16")  # in the order of the kernel's kinds
SCALE = pixel.rounded_scale(np.array((0.2470, 0.2435, 0.2616)))
BIAS = pixel.centred_bias(np.array((0.4914, 0.4822, 0.4465)), SCALE)
BIAS_NEAR_ZERO = (np.float32(-100) * SCALE + np.array([3e-5, -1e-6, 0], np.float32)).astype(np.float32)
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
IMAGES[1] = 100  # with BIAS_NEAR_ZERO values too small for float16
ROWS, SAMPLES = np.array([9, 0, 3, 1]), np.array([9, 49_999, 2**62, 7])
SEED, THREADS = 2**63 + 5, kernel_cuda.THREADS


def driver(kind: int, wide: bool) -> Any:
    load, make = kernel_cuda._load, kernel_cuda._maker(kind, wide)

    @numba.njit
    def run(blocks, images, rows, samples, state, seed, pad, reflect, window, flip, cutout, size, scale_and_bias, out):
        tile, drawn = np.empty(kernel_cuda.WORDS, np.uint64), np.empty(5, np.int32)
        for image in range(blocks):
            for thread in range(THREADS):
                position = state[1] + image
                load(thread, position, tile, drawn, images, rows, samples, state, seed, pad, window, flip, cutout)
            for thread in range(THREADS):
                make(thread, image, tile, drawn, reflect, window, cutout, size, scale_and_bias, out)

    return run


def compare(run: Any, config: AugmentConfig, bias: np.ndarray, size: int, kind: int, wide: bool, epoch: int) -> None:
    count = len(ROWS) - 1
    out = np.full(count * 3 * size * size, 77, np.uint32 if kind == kernel_cuda.FLOAT32 else np.uint16)
    run(
        count, IMAGES.reshape(-1).view(np.uint64), ROWS, SAMPLES, np.array([epoch, 1]), np.uint64(SEED),
        np.int32(config.pad), config.pad_mode == "reflect", np.int32(crop_side(config, size)),
        np.int32(kernel_cuda.FLIPS[config.flip]), np.int32(config.cutout), np.int32(size),
        np.concatenate([SCALE, bias]), out.view(np.uint64) if wide else out,
    )  # fmt: skip
    for i, image in enumerate(out.reshape(count, size, size, 3), 1):
        expected = reference.augment_one(
            IMAGES[ROWS[i]], config, SCALE, bias,
            seed=SEED, epoch=epoch, sample=int(SAMPLES[i]), size=size, dtype=DTYPES[kind],
        )  # fmt: skip
        assert np.array_equal(image, expected), (config, size, DTYPES[kind], epoch, i)


def main() -> None:
    """Every option with every other; prints how many mixes were compared."""
    cases = 0
    for kind, sizes in ((0, (32, 24, 18)), (1, (32, 24, 16)), (1, (31, 18, 7, 1)), (2, (32, 16))):
        wide = kernel_cuda.is_wide(kind, sizes[0])
        run = driver(kind, wide)
        for size, pad_mode, flip, epoch in itertools.product(
            sizes, ("zero", "reflect"), ("none", "random", "alternating"), (0, 1)
        ):
            for (pad, cutout), small in itertools.product(((0, 0), (16, 7)), ("area", "crop")):
                config = AugmentConfig(pad=pad, pad_mode=pad_mode, flip=flip, cutout=cutout, small=small)
                bias = BIAS_NEAR_ZERO if epoch == 1 else BIAS
                compare(run, config, bias, size, kind, wide, epoch)
                cases += 1
    print(cases)


if __name__ == "__main__":
    main()
