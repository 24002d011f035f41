"""Compiles a run's kernels before its clocks start."""

from collections.abc import Iterable

import numpy as np
import torch

from fastcifar.augment.transform import Transform
from fastcifar.augment.transform_cuda import CudaTransform
from fastcifar.config import NO_AUGMENTATION
from fastcifar.data.cifar10 import CHANNELS, IMAGE_SHAPE, IMAGE_SIZE
from fastcifar.nn.conv_norm_act import warm_up
from fastcifar.runtime.device import Runtime


def compile_kernels(runtime: Runtime, sizes: Iterable[int]) -> None:
    """Compiles the kernels of a run or loads them from the disk cache; only the process clock counts this.

    `sizes`: sides of the training images in pixels; a GPU has a kernel for each.
    """
    image, row = np.zeros((1, *IMAGE_SHAPE), np.uint8), np.zeros(1, np.int64)
    for dtype in {runtime.dtype, torch.float32}:  # a whitening stem is computed from float32 images
        transform = Transform(NO_AUGMENTATION, (0.5,) * CHANNELS, (0.5,) * CHANNELS, dtype=dtype)
        if runtime.device.type != "cuda":
            transform(image, row, row, 0)
            continue
        on_gpu = CudaTransform(transform, runtime.device)
        images, rows = (torch.from_numpy(array).to(runtime.device) for array in (image, row))
        for size in {IMAGE_SIZE, *sizes}:
            on_gpu(images, rows, rows, 0, size)
    runtime.synchronise()
    if runtime.cpu_kernels != "torch":
        warm_up(runtime.cpu_kernels)
