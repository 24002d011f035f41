"""Tensors as arrays for the kernels."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

NO_INDICES = np.empty((0, 0, 0, 0), np.uint8)
"""Of a layer that does not pool."""


def empty_outputs(
    number: int, channels: int, sides: Sequence[int], dtype: torch.dtype, *, pool: bool
) -> tuple[Tensor, Tensor | None]:
    """Outputs (n, k, *sides) in channels_last, and with `pool` the places of the maxima, uint8 (n, *sides, k)."""
    y = torch.empty((number, channels, *sides), dtype=dtype, memory_format=torch.channels_last)
    return y, torch.empty((number, *sides, channels), dtype=torch.uint8) if pool else None


def places(pool_indices: Tensor | None) -> np.ndarray:
    """The places of the maxima, or what stands for them in a layer that does not pool."""
    return NO_INDICES if pool_indices is None else pool_indices.numpy()


def channels_last(x: Tensor) -> np.ndarray:
    """(n, c, h, w) as (n, h, w, c), without a copy if the tensor is channels_last."""
    return as_array(x.detach().permute(0, 2, 3, 1).contiguous())


def as_array(x: Tensor) -> np.ndarray:
    """The array for the kernels: numba has no float16 on a CPU, so it gets the bits as int16."""
    return x.view(torch.int16).numpy() if x.dtype == torch.float16 else x.numpy()
