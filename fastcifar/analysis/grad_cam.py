"""Where in an image the evidence for a class lies: Grad-CAM, for any network of convolutions.

Source: R. R. Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization"
(arXiv 1610.02391), formulas 1 and 2: heat = ReLU(sum over k of alpha_k * A_k), where A_k is channel k of a layer's
output and alpha_k the mean over its positions of the gradient of the class's logit.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcifar.errors import UserError

COARSEST = 8
"""Positions of a map's side, at least, for a layer to be chosen by itself."""
BATCH_SIZE = 50


@dataclass(frozen=True, slots=True)
class GradCam:
    """Heat of n images: float32 (n, h, w) on the CPU, at least 0, in the resolution and units of `layer`.

    `margin`: by how many pixels the images were continued, by their mirror images, at their right and lower border.
    """

    layer: str
    heat: Tensor
    margin: int = 0

    def upsampled(self, side: int) -> Tensor:
        """Float32 (n, side, side) of images of `side` pixels, without margin; bilinear between positions' centres."""
        whole = side + self.margin
        heat = F.interpolate(self.heat[:, None], (whole, whole), mode="bilinear", align_corners=False)
        return heat[:, 0, :side, :side]

    def relative(self, side: int) -> Tensor:
        """As `upsampled`, each image's divided by its largest heat: 0..1, all 0 where there is no evidence."""
        heat = self.upsampled(side)
        top = heat.amax((1, 2), keepdim=True)
        return torch.where(top > 0, heat / top.clamp(min=torch.finfo(heat.dtype).tiny), 0)


def grad_cam(
    model: nn.Module, images: Tensor, classes: Tensor, layer: str | None = None, *, batch_size: int = BATCH_SIZE
) -> GradCam:
    """Heat for one class of each image, by `model` in evaluation mode and in the type of its weights.

    `images`: (n, 3, s, s), normalised as in training. `classes`: int64 (n,), whose logits are explained. `layer`: name
    of a module, as in `model.named_modules()`; None takes layer and margin from `choose_layer`. Weights, gradients,
    buffers, modes and hooks of the model are afterwards what they were. Raises UserError for shapes and classes that do
    not fit, and a layer that is not there, does not run exactly once or does not put out maps.
    """
    if images.ndim != 4 or classes.shape != images.shape[:1]:
        raise UserError(
            f"images {tuple(images.shape)} and classes {tuple(classes.shape)} must be (n, 3, s, s) and (n,)"
        )
    name, margin = choose_layer(model, images.shape[-1]) if layer is None else (layer, 0)
    module = find_layer(model, name)
    like = next(model.parameters())
    parts = [torch.empty(0, 1, 1)]
    # an inference tensor cannot be differentiated through; outside of inference mode its copy can
    with torch.inference_mode(False), torch.enable_grad(), evaluating(model):
        for some, targets in zip(images.split(batch_size), classes.split(batch_size), strict=True):
            batch = F.pad(some.clone(), (0, margin, 0, margin), "reflect").to(like.device, like.dtype)
            parts.append(_heat(model, module, name, batch, targets.clone().to(like.device)))
    return GradCam(name, torch.cat(parts[1:] or parts), margin)


def choose_layer(model: nn.Module, side: int = 32) -> tuple[str, int]:
    """The last block whose output is at least 8 positions wide, for images of `side` pixels, and the margin it needs.

    A block is a module made of convolutions and other parts; where no block is fine enough, single convolutions are
    looked at. Last in the order of a forward pass. The margin is 0, or 1 where a pixel more at the right and lower
    border lets a later block reach the 8: a stem whose filters are 2 wide and not padded, as SpeedNet's, makes maps of
    31, 15 and 7, and of 32, 16 and 8 with it. A block before it would say little: its channels are edges and colours.
    Raises UserError where no convolution is fine enough.
    """
    without, with_margin = _sides(model, side), _sides(model, side + 1)
    for kind in (True, False):
        fine = [name for name, (is_block, width) in with_margin.items() if is_block is kind and width >= COARSEST]
        if fine:
            return fine[-1], int(without[fine[-1]][1] < COARSEST)
    raise UserError(f"no layer makes maps of {COARSEST}x{COARSEST} or finer of images of {side} pixels; name a layer")


def _sides(model: nn.Module, side: int) -> dict[str, tuple[bool, int]]:
    """By the name of each module with convolutions, in order of execution: whether it is a block, its map's side."""
    found: dict[str, tuple[bool, int]] = {}

    def note(name: str, is_block: bool) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4:
                found[name] = is_block, min(output.shape[2:])

        return hook

    with contextlib.ExitStack() as stack:
        for name, module in model.named_modules():
            if name and any(isinstance(part, nn.Conv2d) for part in module.modules()):
                handle = module.register_forward_hook(note(name, not isinstance(module, nn.Conv2d)))
                stack.callback(handle.remove)
        like = next(model.parameters())
        with evaluating(model), torch.no_grad():
            model(torch.zeros(1, 3, side, side, device=like.device, dtype=like.dtype))
    return found


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; outside, every module's own mode as it was."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def _heat(model: nn.Module, module: nn.Module, name: str, images: Tensor, classes: Tensor) -> Tensor:
    outputs: list[Tensor] = []

    def cut(_module: nn.Module, _inputs: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise UserError(f"the layer {name} does not put out maps (b, channels, h, w)")
        outputs.append(output.detach().requires_grad_())  # from here on only: what comes before needs no gradient
        return outputs[0].clone()  # what follows may work in place

    handle = module.register_forward_hook(cut)
    try:
        logits = model(images)
    finally:
        handle.remove()
    if len(outputs) != 1:
        raise UserError(f"the layer {name} runs {len(outputs)} times in a forward pass, but must run once")
    if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < logits.shape[1]:
        raise UserError(f"classes go from {classes.min()} to {classes.max()}, but the network has {logits.shape[1]}")
    # an image's logit depends on no other image, so the gradient of the sum holds each one's own
    (gradient,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), outputs)
    maps = outputs[0].detach()
    return F.relu((gradient.mean((2, 3), keepdim=True) * maps).sum(1)).float().cpu()


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The module called `name`; raises UserError, with the names there are, where none is."""
    modules = dict(model.named_modules())
    if name not in modules:
        known = ", ".join(part for part in modules if part)
        raise UserError(f"the network has no layer {name!r}: choose one of {known}")
    return modules[name]
