"""Builds a network from its configuration, with weights drawn from the seed of the run."""

import torch
from torch import nn

from fastcifar.config import CpuKernels, ModelConfig
from fastcifar.models.hooks import InitFromGenerator
from fastcifar.rng import Purpose, generator, seeded


def build_model(config: ModelConfig, classes: int, seed: int) -> nn.Module:
    """The network in channels_last float32 on the CPU; the same seed gives bit-identical weights."""
    with seeded(seed, Purpose.INIT):
        model = config.build(classes)
    if isinstance(model, InitFromGenerator):
        model.init_from_generator(generator(seed, Purpose.INIT))
    return model.to("cpu", torch.float32, memory_format=torch.channels_last)  # type: ignore[call-overload]  (nn.Module.to accepts it)


def use_kernels(model: nn.Module, kernels: CpuKernels) -> None:
    """Selects the CPU kernels of all modules that have a choice; a module falls back to torch's for other inputs."""
    for module in model.modules():
        if hasattr(type(module), "kernels"):
            module.kernels = kernels  # type: ignore[assignment]


def outline(config: ModelConfig, classes: int) -> nn.Module:
    """The network on the meta device: shapes without values, for counting; takes no memory and no time."""
    with torch.device("meta"):
        return config.build(classes)
