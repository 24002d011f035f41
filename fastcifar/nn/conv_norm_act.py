"""conv 3x3 -> (max-pool 2) -> batch norm -> activation, in fused CPU kernels or as PyTorch's layers.

The fused kernels are used where they are asked for and support the case. PyTorch's layers run on GPUs, in 16-bit
autocast except with AMX, for other filters, and when a network is exported, counted or inspected; on a GPU
torch.compile may fuse those behind the convolution (`pool_norm_act`). Results agree within rounding.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fastcifar.config import CpuKernels, Kernels
from fastcifar.nn import norm_act
from fastcifar.nn.arrays import as_array
from fastcifar.nn.convolutions import CONVOLUTIONS, Convolution
from fastcifar.nn.norm_act import ACTIVATION_INDEX
from fastcifar.nn.pool_norm_act import FUNCTIONS, pool_norm_act
from fastcifar.nn.winograd.matrices import OUTPUT_TILE
from fastcifar.runtime.simd.vector import LANES

FP16_TYPICAL = 2.0**-10
"""The root mean square that float16 gradients are scaled to. Down to 1/16 of that they keep all bits of float16; above
1000 times that they are clamped (`norm_act.FP16_LIMIT`)."""


def conv_norm_act(
    x: Tensor,
    conv: nn.Conv2d,
    norm: nn.BatchNorm2d,
    activation: str,
    *,
    pool: bool = False,
    kernels: Kernels = "torch",
) -> Tensor:
    """(b, c, h, w) to (b, k, h, w), or with `pool` to (b, k, h // 2, w // 2).

    activation: "gelu", "relu" or "silu". kernels: "torch"; "compiled", PyTorch's layers with those behind the
    convolution compiled in training; "winograd"; "winograd-fp16", where everything between the input of the
    convolution and that of the norm is float16; or "amx", where it multiplies bfloat16 and the norm's input is float16.
    PyTorch's layers run where the last three cannot (`serves`).
    """
    if kernels in CONVOLUTIONS and serves(x, conv, norm, pool=pool, kernels=kernels):
        x, options = x.float(), _Options(activation, pool, CONVOLUTIONS[kernels].of(conv))
        if norm.training:
            return _ConvNormAct.apply(x, conv.weight, norm.weight, norm.bias, conv.bias, norm, options)
        scale, shift = _running(conv, norm)
        z, _ = options.convolution.convolve(x, conv.weight, pool=pool)
        return _apply(z, scale, shift, options)
    return pool_norm_act(conv(x), norm, activation, pool=pool, compiled=kernels == "compiled")


def activate(x: Tensor, activation: str, *, kernels: Kernels = "torch") -> Tensor:
    """The activation alone, of (b, c, h, w) or any other shape.

    The kernels are used for float32 on a CPU if no gradient is needed and the size is a multiple of 16. PyTorch's GELU
    takes 1.5 times as long next to OpenMP's threads. On a GPU it is one kernel, also if compiled.
    """
    dense = x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))
    fits = x.device.type == "cpu" and x.dtype == torch.float32 and dense and x.numel() and x.numel() % LANES == 0
    if not kernels.startswith("winograd") or (x.requires_grad and torch.is_grad_enabled()) or not fits:
        return FUNCTIONS[activation](x)
    out = torch.empty_like(x)
    rows, results = (t.detach().as_strided((t.numel() // LANES, LANES), (LANES, 1)).numpy() for t in (x, out))
    scale, shift = np.ones(LANES, np.float32), np.zeros(LANES, np.float32)
    norm_act.kernels(False).apply(ACTIVATION_INDEX[activation], rows, scale, shift, results, torch.get_num_threads())
    return out


def warm_up(kernels: CpuKernels) -> None:
    """Compiles these kernels, or loads them from numba's disk cache, so that the first step does not."""
    with torch.random.fork_rng(devices=[]):
        conv, norm = nn.Conv2d(LANES, LANES, 3, padding=1), nn.BatchNorm2d(LANES)
    x = torch.zeros(1, LANES, OUTPUT_TILE, OUTPUT_TILE).requires_grad_()
    conv_norm_act(x, conv, norm, "relu", kernels=kernels).sum().backward()
    activate(x.detach(), "relu", kernels=kernels)


def serves(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d, *, pool: bool, kernels: Kernels = "winograd") -> bool:
    """Whether the kernels support these layers for x, in training or without gradients."""
    types = (torch.float32, torch.bfloat16) if kernels == "amx" else (torch.float32,)
    sides = [side // 2 if pool else side for side in x.shape[2:]]
    pixels = len(x) * math.prod(sides)
    return (
        x.device.type == "cpu"
        and x.dtype in types
        and conv.weight.dtype == torch.float32
        and (kernels == "amx" or not torch.is_autocast_enabled("cpu"))
        and (conv.kernel_size, conv.stride, conv.dilation) == ((3, 3), (1, 1), (1, 1))
        and conv.padding in [(padding, padding) for padding in CONVOLUTIONS[kernels].paddings]
        and (conv.groups, conv.padding_mode) == (1, "zeros")
        and x.size(1) == conv.in_channels >= CONVOLUTIONS[kernels].least_channels
        and conv.out_channels == norm.num_features
        and conv.out_channels % LANES == 0
        and norm.affine
        and norm.weight.dtype == torch.float32
        and norm.track_running_stats
        and norm.momentum is not None
        and (norm.training or not torch.is_grad_enabled())
        and pixels > (1 if norm.training else 0)  # a single value has no variance
    )


@dataclass(frozen=True)
class _Options:
    activation: str
    pool: bool
    convolution: Convolution


class _ConvNormAct(torch.autograd.Function):
    """Convolution, pooling, batch norm by the batch's statistics, and activation."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        gain: Tensor,
        bias: Tensor,
        conv_bias: Tensor | None,
        norm: nn.BatchNorm2d,
        options: _Options,
    ) -> Tensor:
        """`gain` and `bias` are the norm's; its running statistics are updated."""
        z, pool_indices = options.convolution.convolve(x, weight, pool=options.pool)
        mean, variance = _moments(z, options.convolution.fp16)
        inverse_std = (variance + norm.eps).rsqrt()
        _update_running(norm, mean if conv_bias is None else mean + conv_bias, variance, z.numel() // z.size(1))
        scale = gain * inverse_std
        shift = bias - mean * scale  # without conv_bias, which the norm subtracts with the mean
        ctx.save_for_backward(x, weight, z, pool_indices, scale, shift, mean, inverse_std)
        ctx.options = options
        return _apply(z, scale, shift, options)

    @staticmethod
    @once_differentiable  # its type has no parameter names, so that no method would fit torch's
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight, gain, bias and conv_bias; that of conv_bias is zero."""
        x, weight, z, pool_indices, scale, shift, mean, inverse_std = ctx.saved_tensors
        convolution, index = ctx.options.convolution, ACTIVATION_INDEX[ctx.options.activation]
        fp16, rows = convolution.fp16, z.numel() // z.size(1)
        kernels, threads = norm_act.kernels(fp16), torch.get_num_threads()
        arrays = [_rows(gradient), _rows(z), *(t.numpy() for t in (scale, shift, mean))]
        parts = np.empty((threads, 3, z.size(1)))
        kernels.gradient_sums(index, *arrays, parts)
        bias_gradient, product, squares = torch.from_numpy(parts.sum(0)).float()
        gain_gradient = product * inverse_std
        grad_scale = _grad_scale((scale * scale * squares).mean().item() / rows) if fp16 else 1.0
        outer = scale * grad_scale
        factors = (outer, -outer * bias_gradient / rows, -outer * inverse_std * gain_gradient / rows)
        z_gradient = torch.empty_like(z)  # channels_last, as z is
        kernels.gradient(index, *arrays, *(t.numpy() for t in factors), _rows(z_gradient), threads)
        needed, sides, scale = ctx.needs_input_grad, tuple(x.shape[2:]), 1 / grad_scale
        return (
            convolution.input_gradient(z_gradient, pool_indices, weight, sides, scale=scale) if needed[0] else None,
            convolution.filter_gradient(x, z_gradient, pool_indices, scale=scale) if needed[1] else None,
            gain_gradient if needed[2] else None,
            bias_gradient if needed[3] else None,
            torch.zeros_like(mean) if needed[4] else None,
            None,
            None,
        )


def _grad_scale(mean_square: float) -> float:
    """The power of two that scales gradients of this mean square to FP16_TYPICAL.

    NaN if the mean square is not finite, so that a diverging training shows it.
    """
    if not mean_square < math.inf:
        return math.nan
    if mean_square == 0:
        return 1.0
    exponent = round(math.log2(FP16_TYPICAL) - math.log2(mean_square) / 2)
    return 2.0 ** max(-60, min(60, exponent))


def _rows(x: Tensor) -> np.ndarray:
    """(n, c, h, w) as (n * h * w, c), without a copy if the tensor is channels_last."""
    return as_array(x.detach().permute(0, 2, 3, 1).contiguous().view(-1, x.size(1)))


def _moments(z: Tensor, fp16: bool) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel, from differences from the first pixel, so that little cancels."""
    rows, origin = _rows(z), z[0, :, 0, 0].float()
    parts = np.empty((torch.get_num_threads(), 2, z.size(1)))
    norm_act.kernels(fp16).moments(rows, origin.numpy(), parts)
    distance, squares = torch.from_numpy(parts.sum(0)) / len(rows)
    return origin + distance.float(), (squares - distance * distance).clamp(min=0).float()


def _update_running(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, rows: int) -> None:
    """Updates the running statistics as torch does, with the unbiased variance."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * (rows / max(1, rows - 1)), norm.momentum)


def _running(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift of the norm by its running statistics."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    mean = norm.running_mean if conv.bias is None else norm.running_mean - conv.bias
    return scale, norm.bias - mean * scale


def _apply(z: Tensor, scale: Tensor, shift: Tensor, options: _Options) -> Tensor:
    """act(z * scale + shift), float32."""
    out, index = torch.empty_like(z, dtype=torch.float32), ACTIVATION_INDEX[options.activation]
    factors = scale.detach().numpy(), shift.detach().numpy()
    norm_act.kernels(options.convolution.fp16).apply(index, _rows(z), *factors, _rows(out), torch.get_num_threads())
    return out
