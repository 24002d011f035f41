"""(max-pool 2) -> batch norm -> activation by PyTorch: an operation after the other, or compiled into few kernels."""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FUNCTIONS = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu, "identity": nn.Identity()}
BACKEND = "inductor"
"""Of torch.compile."""
RECOMPILE_LIMIT = 256
"""Shapes and settings that are compiled in a process, more than its networks have; torch allows 8."""


def pool_norm_act(x: Tensor, norm: nn.BatchNorm2d, activation: str, *, pool: bool, compiled: bool = False) -> Tensor:
    """(b, k, h, w) to the same shape, or with `pool` to (b, k, h // 2, w // 2).

    activation: "gelu", "relu" or "silu". `compiled` applies to training; evaluations are too short to pay for it.
    """
    is_function = calls_function(norm, x.device, compiled=compiled)
    arguments = norm.running_mean, norm.running_var, norm.weight, norm.bias, True, norm.momentum, norm.eps
    if compiled and is_function:
        return _compiled(BACKEND)(x, arguments, activation, pool)
    if pool:
        x = F.max_pool2d(x, 2)
    return FUNCTIONS[activation](F.batch_norm(x, *arguments) if is_function else norm(x))  # type: ignore[arg-type]


def calls_function(norm: nn.BatchNorm2d, device: torch.device, *, compiled: bool = False) -> bool:
    """Whether batch norm runs as a function of the module's tensors, not as the module, which also counts batches.

    On a GPU the count takes a kernel of its own, and nothing reads it while the momentum is a number. On a CPU it
    is part of the weights of recorded runs.
    """
    has_statistics = norm.track_running_stats and norm.momentum is not None
    return norm.training and has_statistics and (compiled or device.type not in ("cpu", "meta"))


@cache
def _compiled(backend: str) -> Any:
    """`_fusible`, compiled at its first call for each shape; importing torch's compiler takes a second."""
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(RECOMPILE_LIMIT, torch._dynamo.config.recompile_limit)
    # static shapes: with channels and sides as constants, a kernel needs no integer divisions
    return torch.compile(_fusible, dynamic=False, backend=backend)


def _fusible(x: Tensor, arguments: tuple[Any, ...], activation: str, pool: bool) -> Tensor:
    """The layers in training; `arguments`: those of `F.batch_norm` after its input, whose statistics it updates.

    On (b, h, w, k), which for channels_last is no copy: the compiler's intermediate results then have that order too.
    """
    x = x.permute(0, 2, 3, 1)
    if pool:
        x = _MaxPool.apply(x)
    rows = FUNCTIONS[activation](F.batch_norm(x.flatten(0, 2), *arguments))
    return rows.view(x.shape).permute(0, 3, 1, 2)


class _MaxPool(torch.autograd.Function):
    """Max-pool 2 of (b, h, w, k), from operations that the compiler fuses with those around; ties go as in PyTorch's.

    The compiler does not fuse PyTorch's own backwards: it adds gradients to zeros in float32, by 64-bit indices.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Saves the place of the maximum in each window, 0 to 3, as a byte."""
        ctx.sides = rows, columns = x.shape[1:3]
        best, *others = (x[:, i : rows - rows % 2 : 2, j : columns - columns % 2 : 2] for i in (0, 1) for j in (0, 1))
        place = torch.zeros_like(best, dtype=torch.uint8)
        for number, other in enumerate(others, 1):
            larger = (other > best) | other.isnan()
            best, place = torch.where(larger, other, best), torch.where(larger, number, place)
        ctx.save_for_backward(place)
        return best

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The gradient at the place of the maximum, elsewhere 0."""
        (place,), (rows, columns) = ctx.saved_tensors, ctx.sides
        places = torch.arange(4, dtype=torch.uint8, device=place.device).view(2, 1, 2, 1)
        windows = torch.where(place[:, :, None, :, None] == places, gradient[:, :, None, :, None], 0.0)
        whole = windows.flatten(1, 2).flatten(2, 3)  # (b, h, 2, w, 2, k) to (b, 2 h, 2 w, k)
        return F.pad(whole, (0, 0, 0, columns % 2, 0, rows % 2))
