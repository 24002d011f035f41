"""Builds a network from its configuration, with weights drawn from the seed of the run."""

import torch
from torch import nn

from fastcifar.config import Kernels, ModelConfig
from fastcifar.errors import UserError
from fastcifar.models.hooks import InitFromGenerator
from fastcifar.rng import Purpose, generator, seeded


def build_model(config: ModelConfig, classes: int, seed: int) -> nn.Module:
    """The network in channels_last float32 on the CPU; the same seed gives bit-identical weights."""
    with seeded(seed, Purpose.INIT):
        model = config.build(classes)
    if isinstance(model, InitFromGenerator):
        model.init_from_generator(generator(seed, Purpose.INIT))
    return model.to("cpu", torch.float32, memory_format=torch.channels_last)  # type: ignore[call-overload]  (nn.Module.to accepts it)


def use_kernels(model: nn.Module, kernels: Kernels) -> None:
    """Selects the kernels of all modules that have a choice; a module falls back to torch's for other inputs."""
    for module in model.modules():
        if hasattr(type(module), "kernels"):
            module.kernels = kernels  # type: ignore[assignment]


def cast_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Keeps the filters and the matrices that learn in `dtype`, in place, so that autocast casts them no more.

    These are the weights of `nn.Conv2d` and `nn.Linear`. Biases, batch norm and what is frozen stay float32: they are
    small, and autocast casts a bias with its layer. Call it before the optimiser is built, whose state has the same
    types. Raises UserError for float16, whose gradients need a scaler, which takes no gradients in float16.
    """
    if dtype == torch.float16:
        raise UserError(
            "weights is amp, but amp is float16, whose gradient scaler needs weights in float32; "
            "use --weights float32, or --amp bfloat16"
        )
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.weight.requires_grad:
            module.weight.data = module.weight.data.to(dtype)


def outline(config: ModelConfig, classes: int) -> nn.Module:
    """The network on the meta device: shapes without values, for counting; takes no memory and no time."""
    with torch.device("meta"):
        return config.build(classes)
