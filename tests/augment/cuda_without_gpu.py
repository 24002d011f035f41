"""Run by test_kernel_cuda.py: the whole CUDA kernel as plain Python, in numba's simulator, against the reference.

NUMBA_ENABLE_CUDASIM must be 1 before numba is imported.
"""

from typing import Any

import numpy as np
import torch

from fastcifar.augment import kernel_cuda, launch_cuda, reference
from fastcifar.augment.transform import DTYPE_CODES, Transform, crop_size
from fastcifar.config import AugmentConfig

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
INDICES, SAMPLE_IDS, FIRST = np.array([9, 0, 3, 1]), np.array([9, 49_999, 2**62, 7]), 1
COUNT = len(INDICES) - FIRST
SEED = 2**63 + 5

# dtype, size, pad, pad_mode, flip, cutout, small, epoch: each value at least once, as a case takes a second
CASES: list[tuple[Any, ...]] = [
    (torch.bfloat16, 32, 4, "zero", "random", 8, "crop", 0),
    (torch.float32, 24, 16, "reflect", "alternating", 0, "area", 2**40),
    (torch.float16, 16, 2, "reflect", "none", 32, "crop", 1),
    (torch.float32, 7, 0, "zero", "alternating", 7, "area", 1),
    (torch.bfloat16, 1, 1, "zero", "random", 1, "area", 0),
]


def compare(transform: Transform, size: int, epoch: int) -> None:
    config, dtype = transform.config, DTYPE_CODES[transform.dtype]
    wide = launch_cuda.is_wide(dtype, size)
    out = np.full(COUNT * 3 * size * size, 77, np.uint32 if transform.dtype == torch.float32 else np.uint16)
    kernel_cuda.cuda.jit(kernel_cuda.build(dtype, wide))[COUNT, launch_cuda.THREADS](
        IMAGES.reshape(-1).view(np.uint64), INDICES, SAMPLE_IDS,
        np.array([epoch, FIRST, SEED], np.uint64).view(np.int64),
        np.concatenate([transform.scale, transform.bias]), out.view(np.uint64) if wide else out,
        np.int32(config.pad), np.int32(config.pad_mode == "reflect"), np.int32(crop_size(config, size)),
        np.int32(launch_cuda.FLIPS[config.flip]), np.int32(config.cutout), np.int32(size),
    )  # fmt: skip
    for i, image in enumerate(out.reshape(COUNT, size, size, 3), FIRST):
        sample_id = int(SAMPLE_IDS[i])
        expected = reference.augment_one(IMAGES[INDICES[i]], transform, epoch=epoch, sample_id=sample_id, size=size)
        assert np.array_equal(image, expected), (config, transform.dtype, size, epoch, i)


def main() -> None:
    for dtype, size, pad, pad_mode, flip, cutout, small, epoch in CASES:
        config = AugmentConfig(pad=pad, pad_mode=pad_mode, flip=flip, cutout=cutout, small=small)
        mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
        compare(Transform(config, mean, std, seed=SEED, dtype=dtype), size, epoch)
    print(len(CASES))


if __name__ == "__main__":
    main()
