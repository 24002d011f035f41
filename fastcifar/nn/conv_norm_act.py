"""conv 3x3 -> (max-pool 2) -> batch norm -> activation, as a network calls it: in kernels of our own where they serve.

Otherwise, and wherever they were not asked for, it is torch's layers one after the other: on GPUs, in 16-bit
arithmetic, for other filters, when a network is exported, counted or looked into. Both give the same within rounding.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from fastcifar.config import CpuKernels
from fastcifar.nn import norm_act
from fastcifar.nn.norm_act import KINDS
from fastcifar.nn.winograd.convolution import as_array, convolve, filter_gradient, input_gradient
from fastcifar.nn.winograd.transforms import TILE
from fastcifar.runtime.vectors import LANES

FUNCTIONS = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}
TYPICAL = 2.0**-10
"""The root mean square of gradients in float16. What is a sixteenth of that keeps all of float16's bits, what is a
thousand times as large is cut off (`norm_act.LIMIT`)."""
FEWEST_CHANNELS = 16
"""With fewer, a convolution's transforms cost more than they save."""


def conv_norm_act(
    x: Tensor,
    conv: nn.Conv2d,
    norm: nn.BatchNorm2d,
    activation: str,
    *,
    pool: bool = False,
    kernels: CpuKernels = "torch",
) -> Tensor:
    """(b, c, h, w) to (b, k, h, w), or with `pool` to (b, k, h // 2, w // 2).

    activation: "gelu", "relu" or "silu". `kernels` other than torch's are taken where they can be: "winograd", or "winograd-fp16",
    the same with all between the convolution's input and its norm in float16.
    """
    if kernels != "torch" and serves(x, conv, norm, pool=pool):
        half = kernels == "winograd-fp16"
        if norm.training:
            return _Trained.apply(x, conv.weight, norm.weight, norm.bias, conv.bias, norm, activation, pool, half)
        scale, shift = _running(conv, norm)
        z, _ = convolve(x, conv.weight, pool=pool, half=half)
        return _apply(z, scale, shift, activation, half)
    x = conv(x)
    if pool:
        x = F.max_pool2d(x, 2)
    return FUNCTIONS[activation](norm(x))


def activate(x: Tensor, activation: str, *, kernels: CpuKernels = "torch") -> Tensor:
    """The activation alone, of (b, c, h, w) or any other shape.

    `kernels` other than torch's are taken for float32 on a CPU where no gradient goes through it and sixteens fill it:
    beside OpenMP's threads torch's GELU takes one and a half times as long.
    """
    dense = x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))
    fits = x.device.type == "cpu" and x.dtype == torch.float32 and dense and x.numel() and x.numel() % LANES == 0
    if kernels == "torch" or (x.requires_grad and torch.is_grad_enabled()) or not fits:
        return FUNCTIONS[activation](x)
    out = torch.empty_like(x)
    rows, results = (t.detach().as_strided((t.numel() // LANES, LANES), (LANES, 1)).numpy() for t in (x, out))
    once, nothing = np.ones(LANES, np.float32), np.zeros(LANES, np.float32)
    norm_act.kernels(False).apply(KINDS[activation], rows, once, nothing, results, torch.get_num_threads())
    return out


def warm_up(kernels: CpuKernels) -> None:
    """Compiles these kernels, or loads them from numba's disk cache, which otherwise the first step would do."""
    with torch.random.fork_rng(devices=[]):
        conv, norm = nn.Conv2d(LANES, LANES, 3, padding=1), nn.BatchNorm2d(LANES)
    x = torch.zeros(1, LANES, TILE, TILE).requires_grad_()
    conv_norm_act(x, conv, norm, "relu", kernels=kernels).sum().backward()
    activate(x.detach(), "relu", kernels=kernels)


def serves(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d, *, pool: bool) -> bool:
    """Whether our kernels compute what these layers do for x: of its kind, in training or without gradients."""
    sides = [side // 2 if pool else side for side in x.shape[2:]]
    pixels = len(x) * math.prod(sides)
    return (
        x.device.type == "cpu"
        and x.dtype == conv.weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and (conv.kernel_size, conv.stride, conv.padding, conv.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))
        and (conv.groups, conv.padding_mode) == (1, "zeros")
        and x.size(1) == conv.in_channels >= FEWEST_CHANNELS
        and conv.out_channels == norm.num_features
        and conv.out_channels % LANES == 0
        and norm.affine
        and norm.weight.dtype == torch.float32
        and norm.track_running_stats
        and norm.momentum is not None
        and (norm.training or not torch.is_grad_enabled())
        and pixels > (1 if norm.training else 0)  # a single value has no variance
    )


class _Trained(torch.autograd.Function):
    """With the batch's own statistics; what is kept for the gradient is the input and the values before the norm."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        gain: Tensor,
        bias: Tensor,
        conv_bias: Tensor | None,
        norm: nn.BatchNorm2d,
        activation: str,
        pool: bool,
        half: bool,
    ) -> Tensor:
        z, chosen = convolve(x, weight, pool=pool, half=half)
        mean, variance = _moments(z, half)
        inverse = (variance + norm.eps).rsqrt()
        _remember(norm, mean if conv_bias is None else mean + conv_bias, variance, z.numel() // z.size(1))
        scale = gain * inverse
        shift = bias - mean * scale  # a bias of the convolution is taken off again with the mean
        ctx.save_for_backward(x, weight, z, chosen, scale, shift, mean, inverse)
        ctx.activation, ctx.half = activation, half
        return _apply(z, scale, shift, activation, half)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, z, chosen, scale, shift, mean, inverse = ctx.saved_tensors
        kind, rows, threads = KINDS[ctx.activation], z.numel() // z.size(1), torch.get_num_threads()
        incoming, values = _rows(gradient), _rows(z)
        factors = [t.numpy() for t in (scale, shift, mean)]
        parts = np.empty((threads, 3, z.size(1)))
        norm_act.kernels(ctx.half).gradient_sums(kind, incoming, values, *factors, parts)
        total, product, squares = torch.from_numpy(parts.sum(0)).float()
        to_gain = product * inverse
        lift = _lift((scale * scale * squares).mean().item() / rows) if ctx.half else 1.0
        outer = scale * lift
        linear = [t.numpy() for t in (outer, -outer * total / rows, -outer * inverse * to_gain / rows)]
        before = torch.empty_like(z)  # channels_last, as z is
        norm_act.kernels(ctx.half).gradient(kind, incoming, values, *factors, *linear, _rows(before), threads)
        wanted, options = ctx.needs_input_grad, {"factor": 1 / lift, "half": ctx.half}
        return (
            input_gradient(before, chosen, weight, x.size(2), x.size(3), **options) if wanted[0] else None,
            filter_gradient(x, before, chosen, **options) if wanted[1] else None,
            to_gain if wanted[2] else None,
            total if wanted[3] else None,
            torch.zeros_like(mean) if wanted[4] else None,
            *[None] * 4,
        )


def _lift(square: float) -> float:
    """The power of two that brings gradients of this mean square to where float16 tells most of them apart.

    NaN for one that is not finite: a training that diverges has to show it.
    """
    if not square < math.inf:
        return math.nan
    if square == 0:
        return 1.0
    exponent = round(math.log2(TYPICAL) - math.log2(square) / 2)
    return 2.0 ** max(-60, min(60, exponent))


def _rows(x: Tensor) -> np.ndarray:
    """(n, c, h, w) as (n * h * w, c), without a copy where the tensor is channels_last."""
    return as_array(x.detach().permute(0, 2, 3, 1).contiguous().view(-1, x.size(1)))


def _moments(z: Tensor, half: bool) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each channel, from sums of distances to the first pixel: they cancel little."""
    rows, origin = _rows(z), z[0, :, 0, 0].float()
    parts = np.empty((torch.get_num_threads(), 2, z.size(1)))
    norm_act.kernels(half).moments(rows, origin.numpy(), parts)
    away, squares = torch.from_numpy(parts.sum(0)) / len(rows)
    return origin + away.float(), (squares - away * away).clamp(min=0).float()


def _remember(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, rows: int) -> None:
    """Takes a batch into the running statistics, as torch does: its variance is the unbiased one."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * (rows / max(1, rows - 1)), norm.momentum)


def _running(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift by the running statistics."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    mean = norm.running_mean if conv.bias is None else norm.running_mean - conv.bias
    return scale, norm.bias - mean * scale


def _apply(z: Tensor, scale: Tensor, shift: Tensor, activation: str, half: bool) -> Tensor:
    out = torch.empty_like(z, dtype=torch.float32)
    norm_act.kernels(half).apply(
        KINDS[activation], _rows(z), scale.detach().numpy(), shift.detach().numpy(), _rows(out), torch.get_num_threads()
    )
    return out
