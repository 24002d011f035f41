"""Tensors as arrays for the kernels."""

import numpy as np
import torch
from torch import Tensor

NO_INDICES = np.empty((0, 0, 0, 0), np.uint8)
"""Of a layer that does not pool."""


def channels_last(x: Tensor) -> np.ndarray:
    """(n, c, h, w) as (n, h, w, c), without a copy if the tensor is channels_last."""
    return as_array(x.detach().permute(0, 2, 3, 1).contiguous())


def as_array(x: Tensor) -> np.ndarray:
    """The array for the kernels: numba has no float16 on a CPU, so it gets the bits as int16."""
    return x.view(torch.int16).numpy() if x.dtype == torch.float16 else x.numpy()
