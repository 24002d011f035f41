"""The number of FLOPs of a run: computed from its configuration, so it is the same on every device."""

import torch
from torch import Tensor, nn

from fastcifar.data.cifar10 import CHANNELS
from fastcifar.models.build import build_model
from fastcifar.models.hooks import before_step
from fastcifar.models.layer_table import forward_flops
from fastcifar.training.context import RunContext


def training_flops(context: RunContext) -> float:
    """FLOPs of the forward and backward passes of all steps: two per multiply-add of convolutions and linear layers.

    A convolution counts as a direct one, even where a Winograd kernel needs fewer multiplications. A backward pass
    counts as one forward pass for the gradient of a layer's input and one for that of its weights; gradients that are
    not computed (of the images, of a frozen stem) do not count. Batch norm, activations, the optimiser (with Muon's
    matrix products) and evaluations are left out.
    """
    # on the CPU and not on the meta device, whose first forward pass spends a second on imports
    model = build_model(context.config.model, context.classes, context.config.seed).eval()
    known: dict[tuple[int, ...], int] = {}
    total = 0
    for step in range(context.total):
        before_step(model, step, context.steps_per_epoch)
        size = context.image_size(step)
        key = (size, *(p.requires_grad for p in model.parameters()))
        if key not in known:
            known[key] = _flops_per_image(model, size)
        total += context.config.batch_size * known[key]
    return float(total)


def _flops_per_image(model: nn.Module, size: int) -> int:
    """FLOPs of a forward and backward pass at `size` pixels, from the shapes of a forward pass of one."""
    flops = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal flops
        gradients = int(module.get_parameter("weight").requires_grad) + int(inputs[0].requires_grad)
        flops += (1 + gradients) * forward_flops(module, output.shape)

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    model(torch.zeros(1, CHANNELS, size, size))
    for hook in hooks:
        hook.remove()
    return flops
