"""What is compiled before a run's clock starts."""

from collections.abc import Iterable

import numpy as np
import torch

from fastcifar.augment.transform import Transform
from fastcifar.augment.transform_cuda import CudaTransform
from fastcifar.config import NO_AUGMENTATION
from fastcifar.data.cifar10 import IMAGE_SIZE
from fastcifar.nn.conv_norm_act import warm_up
from fastcifar.runtime.device import Runtime


def compile_kernels(runtime: Runtime, sizes: Iterable[int]) -> None:
    """Compiles the kernels of a run, or loads them from the disk cache; on the process clock only.

    `sizes`: the sides of the training images, some of which have a kernel of their own on a GPU.
    """
    image, row = np.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8), np.zeros(1, np.int64)
    for dtype in {runtime.dtype, torch.float32}:  # float32 for the images that a network is initialised with
        transform = Transform(NO_AUGMENTATION, (0.5,) * 3, (0.5,) * 3, dtype=dtype)
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
