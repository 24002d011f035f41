"""What `winograd.py` computes, on tensors: a 3x3 convolution with an optional pooling behind it, and its gradients."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fastcifar.nn.winograd.gemm import ROWS_OF_SUMS, SLAB
from fastcifar.nn.winograd.kernels import has_512_bits, kernels
from fastcifar.nn.winograd.transforms import PRODUCTS, TILE

TILES_AT_A_TIME = 48
"""Of a thread: their transforms fill an L2 cache of a megabyte or two."""
TILES_AT_A_TIME_OF_GRADIENTS = 96
"""For the filters' gradient: its sums, 9 MB at 256 channels, are read and written once for so many."""
NO_CODES = np.empty((0, 0, 0, 0), np.uint8)


def convolve(x: Tensor, weight: Tensor, *, pool: bool = False, half: bool = False) -> tuple[Tensor, Tensor | None]:
    """The correlation of x (n, c, h, w) with weight (k, c, 3, 3), padded by 1; with `pool` maxima of 2x2, stride 2.

    x is float32, channels_last; the result (n, k, h, w) or (n, k, h // 2, w // 2) is so too, or float16 with `half`.
    With it, for pooled ones, come bytes (n, h // 2, w // 2, k) for which of the four was taken. k must be a multiple of
    16 where it is pooled.
    """
    number, _, height, width = x.shape
    values = torch.float16 if half else torch.float32
    if height == width == 1:  # all of a filter but its centre lies on the border
        return (x.flatten(1) @ weight[:, :, 1, 1].T)[..., None, None].to(values), None
    sides = (height // 2, width // 2) if pool else (height, width)
    y = torch.empty((number, len(weight), *sides), dtype=values, memory_format=torch.channels_last)
    chosen = torch.empty((number, *sides, len(weight)), dtype=torch.uint8) if pool else None
    filters = _filters(weight.permute(2, 3, 1, 0), half=half)
    _convolve(x, None, filters, y, chosen, *_needed(height, width, pool=pool), 1.0, half=half)
    return y, chosen


def input_gradient(
    gradient: Tensor,
    chosen: Tensor | None,
    weight: Tensor,
    height: int,
    width: int,
    *,
    factor: float = 1.0,
    half: bool = False,
) -> Tensor:
    """From the gradient of the results of `convolve`, that of its input (n, c, height, width), times factor.

    With `half` the gradient is float16, and not to go beyond 1 if products of it are to stay finite.
    """
    assert gradient.dtype == (torch.float16 if half else torch.float32)  # the kernels do not look
    if height == width == 1:
        return (gradient.flatten(1).float() @ (weight[:, :, 1, 1] * factor))[..., None, None]
    x = torch.empty((len(gradient), weight.size(1), height, width), memory_format=torch.channels_last)
    filters = _filters(weight.permute(2, 3, 0, 1), turned=True, half=half)
    _convolve(gradient, chosen, filters, x, None, height, width, factor, half=half)
    return x


def filter_gradient(
    x: Tensor, gradient: Tensor, chosen: Tensor | None, *, factor: float = 1.0, half: bool = False
) -> Tensor:
    """From the input of `convolve` and the gradient of its results, that of the weight (k, c, 3, 3), times factor.

    With `half` as `input_gradient`.
    """
    assert gradient.dtype == (torch.float16 if half else torch.float32)
    _, channels, height, width = x.shape
    if height == width == 1:
        weight = torch.zeros(gradient.size(1), channels, 3, 3)
        weight[:, :, 1, 1] = (gradient.flatten(1).float().T * factor) @ x.flatten(1)
        return weight
    outputs, threads = gradient.size(1), torch.get_num_threads()
    slabs, rows = -(-outputs // SLAB), -(-channels // ROWS_OF_SUMS) * ROWS_OF_SUMS
    sums = torch.empty(threads, slabs, PRODUCTS, rows, SLAB)
    codes = NO_CODES if chosen is None else chosen.numpy()
    height, width = _needed(height, width, pool=chosen is not None)
    kernels(half).filter_gradient(
        _pixels_first(x),
        _pixels_first(gradient),
        codes,
        sums.numpy(),
        height,
        width,
        _images(len(x), height, width, TILES_AT_A_TIME_OF_GRADIENTS),
        threads,
        has_512_bits(),
    )
    weight = torch.empty(3, 3, channels, slabs * SLAB)
    kernels(half).collect(sums.numpy(), weight.numpy(), threads)
    return weight[..., :outputs].permute(3, 2, 0, 1) * factor


def _convolve(
    x: Tensor,
    chosen_in: Tensor | None,
    filters: Tensor,
    y: Tensor,
    chosen_out: Tensor | None,
    height: int,
    width: int,
    factor: float,
    *,
    half: bool,
) -> None:
    codes_in, codes_out = (NO_CODES if chosen is None else chosen.numpy() for chosen in (chosen_in, chosen_out))
    kernels(half).convolve(
        _pixels_first(x),
        codes_in,
        filters.numpy(),
        _pixels_first(y),
        codes_out,
        np.array([factor], np.float32),
        height,
        width,
        _images(len(x), height, width, TILES_AT_A_TIME),
        torch.get_num_threads(),
        has_512_bits(),
    )


def _needed(height: int, width: int, *, pool: bool) -> tuple[int, int]:
    """Rows and columns of results that are asked for: pooling leaves out the last of an odd number."""
    return (height // 2 * 2, width // 2 * 2) if pool else (height, width)


def _images(number: int, height: int, width: int, tiles: int) -> int:
    """Images that a thread takes at a time: of about so many tiles, and no more than its fraction of all."""
    fraction = -(-number // torch.get_num_threads())
    return max(1, min(fraction, tiles // max(1, -(-height // TILE) * -(-width // TILE))))


def _pixels_first(x: Tensor) -> np.ndarray:
    """(n, h, w, c), without a copy where the tensor is channels_last."""
    return as_array(x.detach().permute(0, 2, 3, 1).contiguous())


def as_array(x: Tensor) -> np.ndarray:
    """As the kernels take it: numba has no float16 on a CPU, so it gets the int16 of the same bits."""
    return x.view(torch.int16).numpy() if x.dtype == torch.float16 else x.numpy()


def _filters(weight: Tensor, *, half: bool, turned: bool = False) -> Tensor:
    """Weights (3, 3, inputs, outputs), `turned` by 180 degrees or not, as the kernel takes them."""
    inputs, outputs = weight.shape[2:]
    slabs = -(-outputs // SLAB)
    missing = inputs % 2 if half else 0  # float16 ones are taken two inputs at a time
    weight = F.pad(weight.detach(), (0, slabs * SLAB - outputs, 0, missing)).contiguous()
    filters = torch.empty(slabs, PRODUCTS, inputs + missing, SLAB)
    kernels(half).spread(weight.numpy(), turned, filters.numpy(), torch.get_num_threads())
    return filters
