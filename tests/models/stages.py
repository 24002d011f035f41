"""Output shapes of a network's named parts."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def stage_shapes(model: nn.Module, names: Sequence[str], side: int) -> list[tuple[int, ...]]:
    """Of one black image of `side` pixels, without the batch."""
    shapes: list[tuple[int, ...]] = []

    def note(module: nn.Module, inputs: Sequence[Tensor], output: Tensor) -> None:
        shapes.append(tuple(output.shape[1:]))

    for name in names:
        model.get_submodule(name).register_forward_hook(note)
    model.eval()(torch.zeros(1, 3, side, side))
    return shapes
