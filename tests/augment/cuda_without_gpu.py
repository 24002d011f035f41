"""Run by test_kernel_cuda.py as `cuda_without_gpu.py MODE`: the CUDA kernel against the reference, without a GPU.

`simulated`, with NUMBA_ENABLE_CUDASIM=1: the whole kernel as plain Python. `compiled`: its functions as numba types
them, compiled for the CPU. The two differ: numba's uint32 + uint32 is a uint64, so what wraps around in NumPy need not
wrap around in a compiled kernel.
"""

import itertools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numba
import numpy as np
import torch
from numba import extending

if sys.argv[1] == "compiled":  # replaces numba.cuda by a module whose functions are compiled for the CPU
    fake: Any = ModuleType("numba.cuda")
    fake.jit, fake.extending = lambda device, inline: numba.njit(inline=inline), extending
    sys.modules["numba.cuda"] = numba.cuda = fake  # type: ignore[attr-defined]

from fastcifar.augment import kernel_cuda, reference
from fastcifar.augment.transform import DTYPE_CODES, Transform, crop_size
from fastcifar.config import AugmentConfig

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
IMAGES[1] = 100
INDICES, SAMPLE_IDS, FIRST = np.array([9, 0, 3, 1]), np.array([9, 49_999, 2**62, 7]), 1
COUNT, THREADS = len(INDICES) - FIRST, kernel_cuda.THREADS


def simulated(dtype: int, wide: bool) -> Callable[..., None]:
    return kernel_cuda.kernel(dtype, wide)[COUNT, THREADS]


def compiled(dtype: int, wide: bool) -> Callable[..., None]:
    """The kernel with the threads of a block one after the other: all up to the barrier, then all from there on."""
    load, store = kernel_cuda._load, kernel_cuda._build_store(dtype, wide)

    @numba.njit
    def run(images, indices, ids, state, seed, pad, reflect, crop_size, flip, cutout, size, scale_and_bias, out):
        tile, geometry = np.empty(kernel_cuda.WORDS, np.uint64), np.empty(5, np.int32)
        for image in range(COUNT):
            at = state[1] + image
            for thread in range(THREADS):
                load(thread, at, tile, geometry, images, indices, ids, state, seed, pad, crop_size, flip, cutout)
            for thread in range(THREADS):
                store(thread, image, tile, geometry, reflect, crop_size, cutout, size, scale_and_bias, out)

    return run


def compare(run: Callable[..., None], transform: Transform, size: int, epoch: int, wide: bool) -> None:
    config = transform.config
    out = np.full(COUNT * 3 * size * size, 77, np.uint32 if transform.dtype == torch.float32 else np.uint16)
    run(
        IMAGES.reshape(-1).view(np.uint64), INDICES, SAMPLE_IDS, np.array([epoch, FIRST]), np.uint64(transform.seed),
        np.int32(config.pad), config.pad_mode == "reflect", np.int32(crop_size(config, size)),
        np.int32(kernel_cuda.FLIPS[config.flip]), np.int32(config.cutout), np.int32(size),
        np.concatenate([transform.scale, transform.bias]), out.view(np.uint64) if wide else out,
    )  # fmt: skip
    for i, image in enumerate(out.reshape(COUNT, size, size, 3), FIRST):
        sample_id = int(SAMPLE_IDS[i])
        expected = reference.augment_one(IMAGES[INDICES[i]], transform, epoch=epoch, sample_id=sample_id, size=size)
        assert np.array_equal(image, expected), (config, transform.dtype, size, epoch, i)


# dtype, size, pad, pad_mode, flip, cutout, small, epoch: each value at least once, as a simulated case takes a second
FEW: list[tuple[Any, ...]] = [
    (torch.bfloat16, 32, 4, "zero", "random", 8, "crop", 0),
    (torch.float32, 24, 16, "reflect", "alternating", 0, "area", 2**40),
    (torch.float16, 16, 2, "reflect", "none", 32, "crop", 1),
    (torch.float32, 7, 0, "zero", "alternating", 7, "area", 1),
    (torch.bfloat16, 1, 1, "zero", "random", 1, "area", 0),
]
EVERY_OPTION: list[tuple[Any, ...]] = [
    (dtype, size, pad, pad_mode, flip, cutout, small, epoch)
    for dtype, sizes in ((torch.float32, (32, 24, 18)), (torch.bfloat16, (31, 18, 7, 1)), (torch.float16, (32, 16)))
    for size, pad_mode, flip, (pad, cutout), small, epoch in itertools.product(
        sizes, ("zero", "reflect"), ("none", "random", "alternating"), ((0, 0), (16, 7)), ("area", "crop"), (0, 1)
    )
]


def main() -> None:
    build, cases = (simulated, FEW) if sys.argv[1] == "simulated" else (compiled, EVERY_OPTION)
    runs = {}
    for dtype, size, pad, pad_mode, flip, cutout, small, epoch in cases:
        config = AugmentConfig(pad=pad, pad_mode=pad_mode, flip=flip, cutout=cutout, small=small)
        transform = Transform(config, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), seed=2**63 + 5, dtype=dtype)
        if epoch == 1:  # gives the image of the value 100 results that are too small for float16
            transform.bias = np.float32(-100) * transform.scale + np.array([3e-5, -1e-6, 0], np.float32)
        code = DTYPE_CODES[dtype]
        key = code, kernel_cuda.is_wide(code, size)
        if key not in runs:
            runs[key] = build(*key)
        compare(runs[key], transform, size, epoch, key[1])
    print(len(cases))


if __name__ == "__main__":
    main()
