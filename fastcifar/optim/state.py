"""The state of any torch optimiser as named tensors, for checkpoints without pickle and for CUDA graphs."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from fastcifar.config import OptimizerConfig
from fastcifar.errors import UserError


def state_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The tensors kept between steps, "<number of the parameter>.<name>": not copies.

    A parameter has none before its first step. Raises UserError for a state that is not a tensor.
    """
    found: dict[str, Tensor] = {}
    for number, parameter in enumerate(_parameters(optimizer)):
        for name, value in optimizer.state.get(parameter, {}).items():
            if not isinstance(value, Tensor):
                kind = type(optimizer).__name__
                raise UserError(f"{kind} keeps {name} as {type(value).__name__}, but its state must be tensors")
            found[f"{number}.{name}"] = value
    return found


def load_state_tensors(
    optimizer: torch.optim.Optimizer, saved: dict[str, Tensor], model: nn.Module, config: OptimizerConfig, batch: int
) -> None:
    """Sets the state of a new optimiser of `model`, built from `config` for batches of `batch`.

    Raises UserError, and leaves the state empty, if `saved` holds what no step of this optimiser makes.
    """
    expected = _specification(model, config, batch)
    parameters, state = _parameters(optimizer), optimizer.state_dict()["state"]
    for key, tensor in saved.items():
        if expected.get(key) != (tensor.dtype, tensor.shape):
            raise UserError(f"the checkpoint has another optimiser state: {key}, {tensor.dtype} {tuple(tensor.shape)}")
        number, _, name = key.partition(".")
        parameter = parameters[int(number)]
        # in the memory order of the parameter, as the optimiser makes it; a step counter may stay on the CPU
        like = torch.empty_like(parameter) if parameter.shape == tensor.shape else tensor
        state.setdefault(int(number), {})[name] = like.to(tensor.dtype).copy_(tensor)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _parameters(optimizer: torch.optim.Optimizer) -> list[Any]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _specification(model: nn.Module, config: OptimizerConfig, batch: int) -> dict[str, tuple[torch.dtype, torch.Size]]:
    """Type and shape of every tensor that a step of all parameters leaves, from such a step of a copy."""
    trial = config.build(copy.deepcopy(model), batch)
    for parameter in _parameters(trial):
        parameter.grad = torch.zeros_like(parameter)
    trial.step()
    return {key: (tensor.dtype, tensor.shape) for key, tensor in state_tensors(trial).items()}
