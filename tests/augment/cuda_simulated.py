"""Run by test_kernel_cuda.py with NUMBA_ENABLE_CUDASIM=1: the GPU's kernel as plain Python against the reference."""

import numpy as np

from fastcifar.augment import kernel_cuda, reference
from fastcifar.augment.pixel import centred_bias, rounded_scale
from fastcifar.augment.transform import crop_side
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
        np.int32(config.pad), config.pad_mode == "reflect", np.int32(crop_side(config, size)),
        np.int32(kernel_cuda.FLIPS[config.flip]), np.int32(config.cutout), np.int32(size),
        np.concatenate([SCALE, BIAS]), out.view(np.uint64) if wide else out,
    )  # fmt: skip
    for i, image in enumerate(out.reshape(count, size, size, 3), FIRST):
        expected = reference.augment_one(
            IMAGES[ORDER[i]], config, SCALE, BIAS,
            seed=SEED, epoch=epoch, sample=int(SAMPLES[i]), size=size, dtype=DTYPES[kind],
        )  # fmt: skip
        assert np.array_equal(image, expected), (config, size, DTYPES[kind], epoch, i)


def main() -> None:
    """A few mixes of the options, each value at least once, as a mix takes half a second; prints how many."""
    cases = (
        (32, 1, 4, "zero", "random", 8, "crop", 0),
        (32, 0, 16, "reflect", "alternating", 0, "area", 1),
        (24, 2, 2, "zero", "alternating", 7, "area", 2**40),
        (24, 1, 4, "reflect", "none", 32, "area", 1),
        (24, 1, 2, "reflect", "alternating", 0, "crop", 1),
        (16, 1, 2, "reflect", "alternating", 0, "area", 0),
        (16, 0, 0, "zero", "random", 8, "area", 1),
        (16, 0, 16, "zero", "random", 8, "crop", 0),
        (7, 1, 4, "reflect", "random", 8, "area", 1),
        (7, 0, 1, "zero", "none", 0, "area", 0),
        (7, 2, 0, "zero", "alternating", 7, "crop", 2**40),
        (1, 2, 0, "zero", "alternating", 1, "area", 1),
    )
    for size, kind, pad, pad_mode, flip, cutout, small, epoch in cases:
        config = AugmentConfig(pad=pad, pad_mode=pad_mode, flip=flip, cutout=cutout, small=small)  # type: ignore
        compare(config, size, kind, epoch)
    print(len(cases))


if __name__ == "__main__":
    main()
