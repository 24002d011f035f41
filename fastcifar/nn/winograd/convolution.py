"""The Winograd kernels on tensors: a 3x3 convolution with optional max-pooling, and its gradients.

With `fp16`, everything between input and output is float16, and so are the output and its gradient.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fastcifar.nn.arrays import as_array, channels_last, empty_outputs, places
from fastcifar.nn.winograd.gemm import BLOCK, FILTER_GRAD_ROWS
from fastcifar.nn.winograd.kernels import GEMMS, has_avx512, kernels
from fastcifar.nn.winograd.matrices import OUTPUT_TILE

TILES_PER_STEP = 48
"""Tiles that a thread takes at a time: transformed, they fill an L2 cache of 1 to 2 MB."""
FILTER_GRAD_TILES_PER_STEP = 96
"""The sums of the filter gradient, 9 MB at 256 channels, are read and written once for so many."""


def convolve(x: Tensor, weight: Tensor, *, pool: bool = False, fp16: bool = False) -> tuple[Tensor, Tensor | None]:
    """Correlation of x (n, c, h, w) with weight (k, c, 3, 3), padded by 1; with `pool`, max-pooled 2x2 with stride 2.

    x: float32. Returns y (n, k, h, w) or (n, k, h // 2, w // 2), channels_last, and, if pooled, the position of each
    maximum in its window (0 to 3, row by row) as uint8 (n, h // 2, w // 2, k). With `pool`, k is a multiple of 16.
    """
    number, _, height, width = x.shape
    dtype = torch.float16 if fp16 else torch.float32
    if height == width == 1:  # only the centre of the filter lies inside the image
        return (x.flatten(1) @ weight[:, :, 1, 1].T)[..., None, None].to(dtype), None
    sides = (height // 2, width // 2) if pool else (height, width)
    y, pool_indices = empty_outputs(number, len(weight), sides, dtype, pool=pool)
    filters = _transform_filters(weight.permute(2, 3, 1, 0), fp16=fp16)
    used = _used_sides(height, width, pool=pool)
    _convolve(x, None, filters, y, pool_indices, used, fp16=fp16)
    return y, pool_indices


def input_gradient(
    gradient: Tensor,
    pool_indices: Tensor | None,
    weight: Tensor,
    sides: tuple[int, int],
    *,
    scale: float = 1.0,
    fp16: bool = False,
) -> Tensor:
    """The gradient of the input (n, c, *sides) of `convolve` from that of its output, times `scale`.

    With `fp16` the gradient is float16 and at most 1, so that products of transformed gradients stay finite.
    """
    assert gradient.dtype == (torch.float16 if fp16 else torch.float32)  # the kernels do not check
    if sides == (1, 1):
        return (gradient.flatten(1).float() @ (weight[:, :, 1, 1] * scale))[..., None, None]
    x = torch.empty((len(gradient), weight.size(1), *sides), memory_format=torch.channels_last)
    filters = _transform_filters(weight.permute(2, 3, 0, 1), rotated=True, fp16=fp16)
    _convolve(gradient, pool_indices, filters, x, None, sides, scale=scale, fp16=fp16)
    return x


def filter_gradient(
    x: Tensor, gradient: Tensor, pool_indices: Tensor | None, *, scale: float = 1.0, fp16: bool = False
) -> Tensor:
    """The gradient of the weight (k, c, 3, 3) of `convolve` from its input and the gradient of its output.

    It is multiplied by `scale`; with `fp16` the gradient is as in `input_gradient`.
    """
    assert gradient.dtype == (torch.float16 if fp16 else torch.float32)
    _, channels, height, width = x.shape
    if height == width == 1:
        weight = torch.zeros(gradient.size(1), channels, 3, 3)
        weight[:, :, 1, 1] = (gradient.flatten(1).float().T * scale) @ x.flatten(1)
        return weight
    outputs, threads = gradient.size(1), torch.get_num_threads()
    blocks, rows = -(-outputs // BLOCK), -(-channels // FILTER_GRAD_ROWS) * FILTER_GRAD_ROWS
    sums = torch.empty(threads, blocks, GEMMS, rows, BLOCK)
    used = _used_sides(height, width, pool=pool_indices is not None)
    kernels(fp16).filter_gradient(
        channels_last(x),
        channels_last(gradient),
        places(pool_indices),
        sums.numpy(),
        *used,
        _images_per_step(len(x), *used, FILTER_GRAD_TILES_PER_STEP),
        threads,
        has_avx512(),
    )
    weight = torch.empty(3, 3, channels, blocks * BLOCK)
    kernels(fp16).reduce_filter_grad(sums.numpy(), weight.numpy(), threads)
    return weight[..., :outputs].permute(3, 2, 0, 1) * scale


def _convolve(
    x: Tensor,
    indices_in: Tensor | None,
    filters: Tensor,
    y: Tensor,
    indices_out: Tensor | None,
    sides: tuple[int, int],
    *,
    scale: float = 1.0,
    fp16: bool,
) -> None:
    kernels(fp16).convolve(
        channels_last(x),
        places(indices_in),
        as_array(filters),
        channels_last(y),
        places(indices_out),
        np.array([scale], np.float32),
        *sides,
        _images_per_step(len(x), *sides, TILES_PER_STEP),
        torch.get_num_threads(),
        has_avx512(),
    )


def _used_sides(height: int, width: int, *, pool: bool) -> tuple[int, int]:
    """Height and width of the outputs that are used: pooling drops the last of an odd number."""
    return (height // 2 * 2, width // 2 * 2) if pool else (height, width)


def _images_per_step(number: int, height: int, width: int, tiles: int) -> int:
    """How many images a thread takes at a time: of about so many tiles, and no more than its part of all images."""
    part = -(-number // torch.get_num_threads())
    return max(1, min(part, tiles // max(1, -(-height // OUTPUT_TILE) * -(-width // OUTPUT_TILE))))


def _transform_filters(weight: Tensor, *, fp16: bool, rotated: bool = False) -> Tensor:
    """Weights (3, 3, inputs, outputs), `rotated` by 180 degrees or not, as the convolution kernel takes them."""
    inputs, outputs = weight.shape[2:]
    blocks = -(-outputs // BLOCK)
    odd = inputs % 2 if fp16 else 0  # float16 filters are stored in pairs of inputs
    weight = F.pad(weight.detach(), (0, blocks * BLOCK - outputs, 0, odd)).contiguous()
    filters = torch.empty(blocks, GEMMS, inputs + odd, BLOCK, dtype=torch.float16 if fp16 else torch.float32)
    kernels(fp16).transform_filters(weight.numpy(), rotated, as_array(filters), torch.get_num_threads())
    return filters
