"""Run by test_kernel_cuda.py with NUMBA_ENABLE_CUDASIM=1: the GPU's kernel as plain Python against the reference."""

import itertools

import numpy as np

from fastcifar.augment import kernel_cuda, reference
from fastcifar.augment.pixel import centred_bias, rounded_scale
from fastcifar.config import AugmentConfig

DTYPES = ("float32", "bfloat16", "float16")  # in the order of the kernel's kinds
SCALE = rounded_scale(np.array((0.2470, 0.2435, 0.2616)))
BIAS = centred_bias(np.array((0.4914, 0.4822, 0.4465)), SCALE)
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
ORDER, SAMPLES, FIRST = np.array([9, 9, 0, 3]), np.array([9, 9, 49_999, 2**62]), 2
SEED = 2**63 + 5


def compare(config: AugmentConfig, size: int, kind: int, epoch: int) -> None:
    count = len(ORDER) - FIRST
    wide = kernel_cuda.is_wide(kind, size)
    out = np.full(count * 3 * size * size, 77, np.uint32 if kind == kernel_cuda.FLOAT32 else np.uint16)
    kernel_cuda.kernel(kind, wide)[count, kernel_cuda.THREADS](
        IMAGES.reshape(-1).view(np.uint64), ORDER, SAMPLES, np.array([epoch, FIRST]), np.uint64(SEED),
        np.int32(config.pad), config.pad_mode == "reflect", np.int32(kernel_cuda.FLIPS[config.flip]),
        np.int32(config.cutout), np.int32(size), np.concatenate([SCALE, BIAS]), out.view(np.uint64) if wide else out,
    )  # fmt: skip
    for i, picture in enumerate(out.reshape(count, size, size, 3), FIRST):
        expected = reference.augment_one(
            IMAGES[ORDER[i]], config, SCALE, BIAS,
            seed=SEED, epoch=epoch, sample=int(SAMPLES[i]), size=size, dtype=DTYPES[kind],
        )  # fmt: skip
        assert np.array_equal(picture, expected), (config, size, DTYPES[kind], epoch, i)


def main() -> None:
    """Every pair of pad mode, flip and epoch, each with another mix of the rest; prints how many were compared."""
    others = itertools.cycle(
        zip((32, 24, 16, 7) * 3, (0, 8, 7) * 4, (1, 2, 0, 1, 1, 0, 2, 1, 2, 2, 0, 0), (4, 16, 1, 2) * 3, strict=True)
    )
    cases = 0
    for pad_mode, flip, epoch in itertools.product(
        ("zero", "reflect"), ("none", "random", "alternating"), (0, 1, 2**40)
    ):
        size, cutout, kind, pad = next(others)
        compare(AugmentConfig(pad=pad, pad_mode=pad_mode, flip=flip, cutout=cutout), size, kind, epoch)
        cases += 1
    for size, cutout, kind, pad in ((32, 32, 1, 16), (1, 0, 0, 0), (31, 5, 2, 0), (16, 0, 2, 0), (32, 0, 0, 16)):
        compare(AugmentConfig(pad=pad, pad_mode="reflect", flip="alternating", cutout=cutout), size, kind, 1)
        cases += 1
    print(cases)


if __name__ == "__main__":
    main()
