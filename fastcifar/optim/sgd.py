"""SGD with momentum."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Sgd:
    """SGD with momentum, optionally Nesterov's; bit-identical to torch.optim.SGD, which lacks `decoupled`.

    v = momentum * v + g;  w -= lr * (g + momentum * v if nesterov else v);  v starts at the first gradient.
    """

    capturable = True

    def __init__(
        self,
        parameters: Sequence[Tensor],
        *,
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        self.parameters = list(parameters)
        self.lr, self.momentum, self.nesterov = lr, momentum, nesterov
        self.weight_decay, self.decoupled = weight_decay, decoupled
        self.velocity = [torch.zeros_like(p) for p in self.parameters] if momentum else []
        self.param_groups = [{"params": self.parameters}]

    @torch.no_grad()
    def step(self, lr_scale: float | Tensor) -> None:
        """One update; skips parameters without a gradient."""
        lr = self.lr * lr_scale
        for i, weight in enumerate(self.parameters):
            gradient = weight.grad
            if gradient is None:
                continue
            if self.weight_decay and self.decoupled:
                weight.mul_(1 - lr * self.weight_decay)
            elif self.weight_decay:
                gradient = gradient.add(weight, alpha=self.weight_decay)
            if self.momentum:
                velocity = self.velocity[i]
                velocity.mul_(self.momentum).add_(gradient)
                gradient = gradient.add(velocity, alpha=self.momentum) if self.nesterov else velocity
            descend(weight, gradient, lr)

    def zero_grad(self) -> None:
        """Sets the gradients to None."""
        for p in self.parameters:
            p.grad = None

    def state(self) -> dict[str, Tensor]:
        """The velocities."""
        return numbered("velocity", self.velocity)


def descend(weight: Tensor, update: Tensor, lr: float | Tensor) -> None:
    """weight -= lr * update, in place; a 0-d tensor `lr` stays on the device."""
    if isinstance(lr, Tensor):
        weight.addcmul_(update, lr, value=-1)
    else:
        weight.add_(update, alpha=-lr)


def numbered(name: str, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """{"name.0": tensors[0], ...}."""
    return {f"{name}.{i}": tensor for i, tensor in enumerate(tensors)}
