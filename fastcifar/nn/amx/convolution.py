"""The AMX kernels on tensors: a 3x3 convolution with optional max-pooling, and its gradients.

Factors are rounded to bfloat16 and summed in float32. The output and its gradient are float16.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fastcifar.nn.amx import tiles
from fastcifar.nn.amx.kernels import TAPS, kernels
from fastcifar.nn.amx.tiles import BLOCK
from fastcifar.nn.arrays import as_array, channels_last, empty_outputs, places
from fastcifar.runtime.device import may_use_amx

CACHE = 1_000_000
"""Bytes that a thread's images may take at a time, so that they stay in its L2 cache."""
LEAST_POSITIONS = 1024
"""Of the images that a thread takes at a time for a filter gradient, whose sums, 9 MB at 512 channels, are read and
written once for so many."""


def convolve(x: Tensor, weight: Tensor, *, pool: bool = False, padding: int = 1) -> tuple[Tensor, Tensor | None]:
    """Correlation of x (n, c, h, w) with weight (k, c, 3, 3), padded by 1 or 0; with `pool`, max-pooled 2x2, stride 2.

    x: float32. Returns y (n, k, h, w), or with padding 0 (n, k, h - 2, w - 2), channels_last float16. If pooled, its
    sides are halved and rounded down, and the position of each maximum in its window (0 to 3, row by row) is returned
    as uint8 (n, y's height, y's width, k). With `pool`, k is a multiple of 16.
    """
    number, _, *sides = x.shape
    sides = [(side - 2 + 2 * padding) // (2 if pool else 1) for side in sides]
    y, pool_indices = empty_outputs(number, len(weight), sides, torch.float16, pool=pool)
    _convolve(x, None, _packed(weight, rotated=False), y, pool_indices, x.shape[2:], inset_out=1 - padding)
    return y, pool_indices


def input_gradient(
    gradient: Tensor,
    pool_indices: Tensor | None,
    weight: Tensor,
    sides: tuple[int, int],
    *,
    scale: float = 1.0,
    padding: int = 1,
) -> Tensor:
    """The gradient of the input (n, c, *sides) of `convolve` from that of its output, float16, times `scale`."""
    assert gradient.dtype == torch.float16  # the kernels do not check
    x = torch.empty((len(gradient), weight.size(1), *sides), memory_format=torch.channels_last)
    filters = _packed(weight, rotated=True)
    _convolve(gradient, pool_indices, filters, x, None, sides, scale=scale, inset_in=1 - padding)
    return x


def filter_gradient(
    x: Tensor, gradient: Tensor, pool_indices: Tensor | None, *, scale: float = 1.0, padding: int = 1
) -> Tensor:
    """The gradient of the weight (k, c, 3, 3) of `convolve` from its input and the gradient of its output, float16.

    It is multiplied by `scale`.
    """
    assert gradient.dtype == torch.float16
    number, channels, height, width = x.shape
    outputs, threads = gradient.size(1), torch.get_num_threads()
    rows, columns = _round_up(outputs), _round_up(channels)
    sums = torch.empty(threads, rows // BLOCK, columns // BLOCK, TAPS, BLOCK, BLOCK)
    image_bytes = 4 * (height + 1) * (width + 1) * (rows + columns)
    kernels().filter_gradient(
        channels_last(x),
        channels_last(gradient),
        places(pool_indices),
        sums.numpy(),
        height,
        width,
        1 - padding,
        _images_per_step(number, image_bytes, -(-LEAST_POSITIONS // ((height + 1) * (width + 1)))),
        threads,
        _configuration(),
    )
    weight = torch.empty(outputs, TAPS, channels)
    kernels().reduce(sums.numpy(), weight.numpy(), np.array([scale], np.float32), threads)
    return weight.unflatten(1, (3, 3)).permute(0, 3, 1, 2)


def _convolve(
    x: Tensor,
    indices_in: Tensor | None,
    filters: Tensor,
    y: Tensor,
    indices_out: Tensor | None,
    sides: Sequence[int],
    *,
    scale: float = 1.0,
    inset_in: int = 0,
    inset_out: int = 0,
) -> None:
    image_bytes = (sides[0] + 1) * (sides[1] + 1) * BLOCK * (2 * filters.size(2) + 4)
    kernels().convolve(
        channels_last(x),
        places(indices_in),
        as_array(filters),
        channels_last(y),
        places(indices_out),
        np.array([scale], np.float32),
        *sides,
        inset_in,
        inset_out,
        _images_per_step(len(x), image_bytes),
        torch.get_num_threads(),
        _configuration(),
    )


@cache
def _configuration() -> np.ndarray:
    """Of the tiles; the first call asks Linux for them."""
    assert may_use_amx()
    return tiles.configuration()


def _images_per_step(number: int, image_bytes: int, least: int = 1) -> int:
    """How many images a thread takes at a time: as many as fit the cache or `least`, but at most its part of all."""
    part = -(-number // torch.get_num_threads())
    return min(part, max(least, CACHE // image_bytes))


def _round_up(channels: int) -> int:
    return -(-channels // BLOCK) * BLOCK


def _packed(weight: Tensor, *, rotated: bool) -> Tensor:
    """A weight (k, c, 3, 3), `rotated` by 180 degrees or not, as the convolution kernel takes it, bfloat16 as int16."""
    outputs, inputs = weight.shape[:2]
    rows, columns = _round_up(outputs), _round_up(inputs)
    weight = weight.detach().permute(0, 2, 3, 1)
    if (rows, columns) != (outputs, inputs):
        weight = F.pad(weight, (0, columns - inputs, 0, 0, 0, 0, 0, rows - outputs))
    blocks, terms = (columns, rows) if rotated else (rows, columns)
    filters = torch.empty(blocks // BLOCK, TAPS, terms // BLOCK, BLOCK * BLOCK, dtype=torch.int16)
    packed = weight.contiguous().view(rows, TAPS, columns).numpy()
    kernels().pack_filters(packed, rotated, filters.numpy(), torch.get_num_threads())
    return filters
