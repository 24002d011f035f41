"""Adam and AdamW."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fastcifar.optim.sgd import numbered


class Adam:
    """Adam, or AdamW with `decoupled`; bit-identical to torch's, but with one step count for all parameters.

    m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g^2;
    w -= lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps) at step t from 1.
    """

    capturable = False

    def __init__(
        self,
        parameters: Sequence[Tensor],
        *,
        lr: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        self.parameters = list(parameters)
        self.lr, self.beta1, self.beta2, self.eps = lr, beta1, beta2, eps
        self.weight_decay, self.decoupled = weight_decay, decoupled
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        self.count = torch.zeros((), dtype=torch.int64)  # steps taken; on the CPU, which reads it
        self.param_groups = [{"params": self.parameters}]

    @torch.no_grad()
    def step(self, lr_scale: float | Tensor) -> None:
        """One update; skips parameters without a gradient."""
        lr = self.lr * float(lr_scale)
        self.count += 1
        count = int(self.count)
        step_size = lr / (1 - self.beta1**count)
        root = (1 - self.beta2**count) ** 0.5
        for weight, first, second in zip(self.parameters, self.first, self.second, strict=True):
            gradient = weight.grad
            if gradient is None:
                continue
            if self.weight_decay and self.decoupled:
                weight.mul_(1 - lr * self.weight_decay)
            elif self.weight_decay:
                gradient = gradient.add(weight, alpha=self.weight_decay)
            first.lerp_(gradient, 1 - self.beta1)
            second.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
            weight.addcdiv_(first, (second.sqrt() / root).add_(self.eps), value=-step_size)

    def zero_grad(self) -> None:
        """Sets the gradients to None."""
        for p in self.parameters:
            p.grad = None

    def state(self) -> dict[str, Tensor]:
        """Both moments and the number of steps."""
        return {**numbered("first", self.first), **numbered("second", self.second), "count": self.count}
