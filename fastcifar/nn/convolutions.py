"""The 3x3 convolutions that can be fused with batch norm and activation on a CPU."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from fastcifar.config import Kernels
from fastcifar.nn.amx import convolution as amx
from fastcifar.nn.winograd import convolution as winograd


@dataclass(frozen=True)
class Convolution:
    """A 3x3 convolution and its gradients: `functions` has them, with the arguments of `winograd/convolution.py`."""

    functions: ModuleType
    fp16: bool
    """Whether the output is float16 instead of float32."""
    least_channels: int
    """Of the input, for which it is faster than PyTorch's."""
    paddings: tuple[int, ...] = (1,)
    """That it supports."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of all functions."""

    def of(self, conv: nn.Conv2d) -> "Convolution":
        """The one with the padding of `conv`."""
        padding = conv.padding[0]
        return self if padding == 1 else replace(self, options={**self.options, "padding": padding})

    def convolve(self, x: Tensor, weight: Tensor, *, pool: bool) -> tuple[Tensor, Tensor | None]:
        """The output and the places of the maxima."""
        return self.functions.convolve(x, weight, pool=pool, **self.options)

    def input_gradient(self, *arguments: Any, scale: float) -> Tensor:
        """The gradient of the input."""
        return self.functions.input_gradient(*arguments, scale=scale, **self.options)

    def filter_gradient(self, *arguments: Any, scale: float) -> Tensor:
        """The gradient of the weight."""
        return self.functions.filter_gradient(*arguments, scale=scale, **self.options)


CONVOLUTIONS: dict[Kernels, Convolution] = {
    # with fewer input channels, the tile transforms cost more than they save
    "winograd": Convolution(winograd, fp16=False, least_channels=16),
    "winograd-fp16": Convolution(winograd, fp16=True, least_channels=16, options={"fp16": True}),
    "amx": Convolution(amx, fp16=True, least_channels=1, paddings=(0, 1)),
}
"""The kernels that fuse a convolution with what follows it."""
