"""Grad-CAM: which parts of an image raise the logit of a class, for any convolutional network.

Source: R. R. Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization"
(arXiv 1610.02391), formulas 1 and 2: heat = ReLU(sum over k of alpha_k * A_k), where A_k is channel k of a layer's
feature map and alpha_k the gradient of the class's logit with respect to A_k, averaged over positions.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcifar.errors import UserError, choose_one

MIN_SIZE = 8
"""Smallest side of a feature map that `choose_layer` accepts; the heat of a smaller one is too coarse."""


@dataclass(frozen=True, slots=True)
class GradCam:
    """Heat of n images: float32 (n, h, w) on the CPU, at least 0, in the resolution and units of `layer`.

    `padding`: pixels of reflect padding at the right and the bottom of the images.
    """

    layer: str
    heat: Tensor
    padding: int = 0

    def upsampled(self, side: int) -> Tensor:
        """Heat scaled to the image, float32 (n, side, side), bilinear; the padding is cropped."""
        padded = side + self.padding
        heat = F.interpolate(self.heat[:, None], (padded, padded), mode="bilinear", align_corners=False)
        return heat[:, 0, :side, :side]

    def relative(self, side: int) -> Tensor:
        """As `upsampled`, divided by each image's largest heat: 0..1; all 0 if the image has no heat."""
        heat = self.upsampled(side)
        top = heat.amax((1, 2), keepdim=True)
        return torch.where(top > 0, heat / top.clamp(min=torch.finfo(heat.dtype).tiny), 0)


def grad_cam(
    model: nn.Module, images: Tensor, classes: Tensor, layer: str | None = None, *, batch_size: int = 50
) -> GradCam:
    """Heat for one class per image, by `model` in evaluation mode and in the dtype of its weights.

    `images`: (n, 3, s, s), normalised as in training. `classes`: int64 (n,), the classes to explain. `layer`: a name
    from `model.named_modules()`; None takes layer and padding from `choose_layer`. Leaves the model's weights,
    gradients, buffers, modes and hooks unchanged. Raises UserError for shapes or classes that do not fit, and for a
    layer that does not exist, does not run exactly once or does not output a feature map.
    """
    if images.ndim != 4 or classes.shape != images.shape[:1]:
        shapes = f"images {tuple(images.shape)} and classes {tuple(classes.shape)}"
        raise UserError(f"{shapes} must be (n, 3, s, s) and (n,)")
    name, padding = choose_layer(model, images.shape[-1]) if layer is None else (layer, 0)
    module = find_layer(model, name)
    like = next(model.parameters())
    parts: list[Tensor] = []
    # autograd cannot use inference tensors, but it can use copies made outside inference mode
    with torch.inference_mode(False), torch.enable_grad(), evaluating(model):
        for some, targets in zip(images.split(batch_size), classes.split(batch_size), strict=True):
            batch = F.pad(some.clone(), (0, padding, 0, padding), "reflect").to(like.device, like.dtype)
            parts.append(_heat(model, module, name, batch, targets.clone().to(like.device)))
    return GradCam(name, torch.cat(parts), padding)


def choose_layer(model: nn.Module, side: int = 32) -> tuple[str, int]:
    """The last layer, in the order of the forward pass, with a feature map of at least 8x8, and the padding it needs.

    `side`: of the images, in pixels. Blocks (modules that contain convolutions) come first; single convolutions are
    used only if no block is large enough. Padding is 1 if one more pixel lets a later block reach 8x8, else 0: the
    unpadded 2x2 convolution of SpeedNet's stem leads to 31, 15 and 7 pixels, with padding to 32, 16 and 8. The block
    before, at 15x15, is a poor choice, as its channels are still edges and colours. Raises UserError if no layer is
    large enough.
    """
    without, padded = _sides(model, side), _sides(model, side + 1)
    for kind in (True, False):
        large = [name for name, (is_block, width) in padded.items() if is_block is kind and width >= MIN_SIZE]
        if large:
            return large[-1], int(without[large[-1]][1] < MIN_SIZE)
    raise UserError(f"no layer has feature maps of {MIN_SIZE}x{MIN_SIZE} or larger for {side}-pixel images; name one")


def _sides(model: nn.Module, side: int) -> dict[str, tuple[bool, int]]:
    """For each module with convolutions, in forward order: whether it is a block, and the side of its feature map."""
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
    """Puts the model into evaluation mode, and afterwards every module back into the mode it was in."""
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
            raise UserError(f"the layer {name} does not output feature maps (n, channels, h, w)")
        outputs.append(output.detach().requires_grad_())  # a new leaf: no gradients for the layers before
        return outputs[0].clone()  # the next layer may work in place

    handle = module.register_forward_hook(cut)
    try:
        logits = model(images)
    finally:
        handle.remove()
    if len(outputs) != 1:
        raise UserError(f"the layer {name} runs {len(outputs)} times in a forward pass, but must run once")
    if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < logits.shape[1]:
        raise UserError(f"classes go from {classes.min()} to {classes.max()}, but the network has {logits.shape[1]}")
    # a logit depends on its own image only, so the gradient of the sum is that of each logit
    (gradient,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), outputs)
    alpha = gradient.mean((2, 3), keepdim=True)
    return F.relu((alpha * outputs[0].detach()).sum(1)).float().cpu()


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The module called `name`; raises UserError that lists the names if there is none."""
    modules = dict(model.named_modules())
    if name not in modules:
        raise UserError(f"the network has no layer {name!r}: {choose_one(name, filter(None, modules))}")
    return modules[name]
