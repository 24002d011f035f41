"""Compiles a run's CPU kernels before its clocks start."""

import numpy as np
import torch

from fastcifar.augment.transform import Transform
from fastcifar.config import NO_AUGMENTATION
from fastcifar.data.cifar10 import CHANNELS, IMAGE_SHAPE
from fastcifar.nn.conv_norm_act import warm_up
from fastcifar.runtime.device import Runtime


def compile_kernels(runtime: Runtime) -> None:
    """Compiles the kernels of a run on a CPU or loads them from the disk cache; only the process clock counts this."""
    image, row = np.zeros((1, *IMAGE_SHAPE), np.uint8), np.zeros(1, np.int64)
    for dtype in {runtime.dtype, torch.float32}:  # a whitening stem is computed from float32 images
        Transform(NO_AUGMENTATION, (0.5,) * CHANNELS, (0.5,) * CHANNELS, dtype=dtype)(image, row, row, 0)
    if runtime.cpu_kernels != "torch":
        warm_up(runtime.cpu_kernels)
