"""How much arithmetic a run takes: a count of what its configuration asks for, the same on every device."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from fastcifar.config import SpeedNetConfig
from fastcifar.models.build import build_model
from fastcifar.models.layer_table import forward_flops
from fastcifar.optim.schedules import resolution
from fastcifar.training.context import RunContext


def training_flops(context: RunContext) -> float:
    """FLOPs of the forward and backward passes of all steps, two per multiply-add of convolutions and linear layers.

    Counted are the direct sums, also where a kernel of ours needs fewer products. A layer's backward pass takes its
    forward pass once for the gradient of its input and once for that of its weights. What is not computed is not
    counted: the gradient of the images, the filters of a stem that is fixed. Batch norm, activations, the
    optimiser (Muon's products as well) and evaluations are left out.
    """
    config = context.config
    # with weights that nobody uses, as the first pass on the meta device costs a process a second of imports
    model = build_model(config.model, context.classes, config.seed).eval()
    known: dict[tuple[int, ...], int] = {}
    total = 0
    for first, last in pairwise([*_changes(context), context.total]):
        context.before_step(model, first)
        size = resolution(first, context.total, config.resolution)
        key = (size, *(p.requires_grad for p in model.parameters()))
        if key not in known:
            known[key] = _flops_per_image(model, size)
        total += (last - first) * config.batch_size * known[key]
    return float(total)


def _changes(context: RunContext) -> list[int]:
    """The steps from which on a step costs something else, the first step among them."""
    config, total = context.config, context.total
    steps = {0, *(math.ceil(until * total) for until, _ in config.resolution)}
    if isinstance(config.model, SpeedNetConfig):
        steps.add(math.ceil(config.model.stem_epochs * context.steps_per_epoch))
    return sorted(step for step in steps if step < total)


def _flops_per_image(model: nn.Module, size: int) -> int:
    """Of a forward and a backward pass at `size` pixels; only a forward is made, of no image: its shapes will do."""
    flops = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal flops
        gradients = int(module.get_parameter("weight").requires_grad) + int(inputs[0].requires_grad)
        flops += (1 + gradients) * forward_flops(module, output.shape)

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    model(torch.empty(0, 3, size, size))
    for hook in hooks:
        hook.remove()
    return flops
