"""The interface of all optimisers, and the one that a configuration asks for.

`step` gets the learning rate as `lr_scale`, a multiplier on the peak learning rate: optimisers keep no schedule.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Protocol

from torch import Tensor, nn

from fastcifar.config import AdamConfig, MuonConfig, OptimizerConfig, SgdConfig
from fastcifar.optim.adam import Adam
from fastcifar.optim.muon import Muon
from fastcifar.optim.sgd import Sgd


class Optimizer(Protocol):
    """Updates parameters from their gradients."""

    param_groups: list[dict[str, list[Tensor]]]
    """`[{"params": ...}]`, as torch's gradient scaler reads it."""

    capturable: bool
    """Whether a CUDA graph can record a step: it reads nothing on the host but its arguments."""

    def step(self, lr_scale: float | Tensor) -> None:
        """One update at `lr_scale` times the peak learning rates; a 0-d tensor on the device while a graph records."""
        ...

    def zero_grad(self) -> None:
        """Sets all gradients to None."""
        ...

    def state(self) -> dict[str, Tensor]:
        """The tensors kept between steps, by name: not copies, so that a checkpoint can be loaded into them."""
        ...


class Combined:
    """Several optimisers, each with its own parameters, as one."""

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        self.parts = list(parts)
        self.capturable = all(part.capturable for part in self.parts)
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, lr_scale: float | Tensor) -> None:
        """One update of each part."""
        for part in self.parts:
            part.step(lr_scale)

    def zero_grad(self) -> None:
        """Sets the gradients of all parts to None."""
        for part in self.parts:
            part.zero_grad()

    def state(self) -> dict[str, Tensor]:
        """The states of all parts, with the part's number before each name."""
        return {f"{i}.{name}": tensor for i, part in enumerate(self.parts) for name, tensor in part.state().items()}


def build_optimizer(model: nn.Module, config: OptimizerConfig, batch_size: int) -> Optimizer:
    """The configured optimiser over the parameters of `model` that learn, for gradients of the mean loss of a batch."""
    learning = [p for p in model.parameters() if p.requires_grad]
    if isinstance(config, SgdConfig):
        return Sgd(learning, **asdict(config))
    if isinstance(config, AdamConfig):
        return Adam(learning, **asdict(config))
    filters, head, biases = ([p for p in learning if p.ndim == ndim] for ndim in (4, 2, 1))
    return Combined(
        [
            Muon(filters, lr=config.lr, momentum=config.momentum, steps=config.steps),
            _nesterov(biases, batch_size * config.bias_lr, config),
            _nesterov(head, batch_size * config.head_lr, config),
        ]
    )


def _nesterov(parameters: Sequence[Tensor], lr: float, config: MuonConfig) -> Sgd:
    decay = config.weight_decay / lr  # SGD multiplies it by lr again: the decay per step does not depend on lr
    return Sgd(parameters, lr=lr, momentum=config.sgd_momentum, nesterov=True, weight_decay=decay)
