"""A network that was passed to `fastcifar.train` as a module or as a function, without being registered."""

import copy
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from fastcifar.config import ModelConfig, register_model
from fastcifar.errors import UserError

Network = nn.Module | Callable[[int], nn.Module]
_given: dict[str, Network] = {}


@register_model("given", listed=False)
@dataclass(frozen=True, kw_only=True, slots=True)
class GivenModel(ModelConfig):
    """A network from Python; another process cannot build it."""

    name: str = ""
    """Name of its class or function."""
    token: str = ""
    """Tells apart networks of the same name, also those of other processes."""

    def build(self, classes: int) -> nn.Module:
        """See `ModelConfig.build`; raises UserError in a process that was not given the network."""
        if self.token not in _given:
            raise UserError(
                f"the network {self.name!r} was passed to train() by another process; to use its runs, put it in a "
                "module and register it with @register_model"
            )
        given = _given[self.token]
        # a copy also of what a function returns: it may return the same module each time
        return copy.deepcopy(given if isinstance(given, nn.Module) else given(classes))


def given_model(model: Network) -> GivenModel:
    """The configuration that stands for `model` in this process, which keeps a reference to it.

    A module is copied for each run, and its weights are the initial ones. A function or class is called with the number
    of classes, under the run's seed.
    """
    name = type(model).__name__ if isinstance(model, nn.Module) else getattr(model, "__name__", type(model).__name__)
    token = next((token for token, known in _given.items() if known is model), None)
    if token is None:
        token = uuid.uuid4().hex[:16]
        _given[token] = model
    return GivenModel(name=name, token=token)
