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
    expected = _state_after_a_step(model, config, batch)
    for key, tensor in saved.items():
        if key not in expected or (tensor.dtype, tensor.shape) != (expected[key].dtype, expected[key].shape):
            raise UserError(f"the checkpoint has another optimiser state: {key}, {tensor.dtype} {tuple(tensor.shape)}")
    parameters, present = _parameters(optimizer), state_tensors(optimizer)
    for key, tensor in saved.items():
        number, _, name = key.partition(".")
        if key in present:
            present[key].copy_(tensor)  # in place, because a CUDA graph has its address
        else:  # on the device and in the memory order of the optimiser's own
            optimizer.state[parameters[int(number)]][name] = torch.empty_like(expected[key]).copy_(tensor)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Any]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _state_after_a_step(model: nn.Module, config: OptimizerConfig, batch: int) -> dict[str, Tensor]:
    """The state that a step of all parameters leaves, from such a step of a copy."""
    trial = config.build(copy.deepcopy(model), batch)
    for parameter in _parameters(trial):
        parameter.grad = torch.zeros_like(parameter)
    trial.step()
    return state_tensors(trial)
