"""The 3x3 convolutions that can be fused with batch norm and activation on a CPU."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from fastcifar.config import Kernels
from fastcifar.nn.amx import convolution as amx
from fastcifar.nn.winograd import convolution as winograd


class Convolution(NamedTuple):
    """A 3x3 convolution and its gradients; see `winograd/convolution.py`."""

    convolve: Callable[..., tuple[Tensor, Tensor | None]]
    input_gradient: Callable[..., Tensor]
    filter_gradient: Callable[..., Tensor]
    fp16: bool
    """Whether its output is float16 instead of float32."""
    least_channels: int
    """Of the input, for which it is faster than PyTorch's."""
    paddings: tuple[int, ...] = (1,)
    """That it supports."""

    def of(self, conv: nn.Conv2d) -> "Convolution":
        """The one with the padding of `conv`."""
        padding = conv.padding[0]
        if padding == 1:
            return self
        functions = self.convolve, self.input_gradient, self.filter_gradient
        return Convolution(*(partial(function, padding=padding) for function in functions), *self[3:])


def _winograd(fp16: bool) -> Convolution:
    functions = winograd.convolve, winograd.input_gradient, winograd.filter_gradient
    # with fewer input channels, the tile transforms cost more than they save
    return Convolution(*(partial(function, fp16=fp16) for function in functions), fp16, least_channels=16)


CONVOLUTIONS: dict[Kernels, Convolution] = {
    "winograd": _winograd(fp16=False),
    "winograd-fp16": _winograd(fp16=True),
    "amx": Convolution(
        amx.convolve, amx.input_gradient, amx.filter_gradient, fp16=True, least_channels=1, paddings=(0, 1)
    ),
}
"""The kernels that fuse a convolution with what follows it."""
