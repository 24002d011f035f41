"""Muon: momentum with orthogonalised updates, for the filters of convolutions.

Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
"""

# torch._foreach_* have no public names:
# pyright: reportPrivateImportUsage=false

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastcifar.config import OptimizerConfig, register_optimizer
from fastcifar.config.components import require, require_decays, require_finite, require_rates

TINY = 1e-30
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of Muon's quintic iteration, which drives singular values towards 1."""


def products_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The type in which `orthogonalise` multiplies updates of `dtype` on `device`.

    bfloat16 on a GPU whose tensor cores multiply it, elsewhere float32 or `dtype` if that is wider.
    """
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return torch.bfloat16
    return torch.promote_types(dtype, torch.float32)


def orthogonalise(updates: Tensor, steps: int, dtype: torch.dtype | None = None) -> Tensor:
    """Approximate nearest semi-orthogonal matrices of a stack (k, m, n), by a quintic Newton-Schulz iteration.

    Singular values above 0.017 of the Frobenius norm end between 0.65 and 1.21 after 3 steps, those above 0.0015 after
    5; smaller ones grow by a factor of 3.4 per step. `steps=0` only rescales to Frobenius norm sqrt(min(m, n)).
    `dtype`: of the products, by default `products_dtype`. The norm is computed in float32, the result has the type of
    `updates`.
    """
    dtype = products_dtype(updates.dtype, updates.device) if dtype is None else dtype
    x = updates.to(torch.promote_types(updates.dtype, torch.float32))
    x = x / (x.flatten(1).norm(dim=1).view(-1, 1, 1) + 1e-7)
    if steps == 0:
        return (x * min(x.size(1), x.size(2)) ** 0.5).to(updates.dtype)
    tall = x.size(1) > x.size(2)
    x = (x.mT if tall else x).to(dtype)
    x = (_iterate_in_half if dtype == torch.bfloat16 else _iterate)(x, steps).to(updates.dtype)
    # contiguous, so that an update has the memory order of its filters: torch._foreach_* needs that for a single kernel
    return x.mT.contiguous() if tall else x


def _iterate(x: Tensor, steps: int) -> Tensor:
    a, b, c = NEWTON_SCHULZ
    # each step multiplies x by a polynomial of x x^T, the small square one: multiply the polynomials first, then x once
    gram, identity = x @ x.mT, torch.eye(x.size(1), device=x.device, dtype=x.dtype)
    product = identity
    for step in range(steps):
        factor = a * identity + torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        product = factor if step == 0 else factor @ product
        if step + 1 < steps:
            gram = factor @ gram @ factor
    return product @ x


def _iterate_in_half(x: Tensor, steps: int) -> Tensor:
    """The same, but x is multiplied in each step: in bfloat16, errors of products of polynomials grow without bound."""
    a, b, c = NEWTON_SCHULZ
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum; in groups with `steps`, the updates of filters (out, in, h, w) are orthogonalised.

        v = momentum * v + g;  u = g + momentum * v;  g includes the L2 penalty weight_decay * w

    Filters are seen as matrices (out, in * h * w). Each step first scales a layer's filters to Frobenius norm
    sqrt(out), so that the learning rate alone sets the rotation per step; batch norm behind the convolution makes the
    norm itself irrelevant. Then w -= lr * orthogonalised(u). In groups whose `steps` is None, w -= lr * u.
    """

    # torch wraps these two for torch.compile, whose import, 0.9 s, it then does in their first call
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float | Tensor = 0.24,
        momentum: float = 0.6,
        steps: int | None = 3,
        weight_decay: float = 0.0,
    ) -> None:
        """`params`: parameters or groups, as for every torch.optim.Optimizer; a 0-d tensor `lr` stays on its device."""
        defaults = {"lr": lr, "momentum": momentum, "steps": steps, "weight_decay": weight_decay, "capturable": True}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of the parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            updates = self._nesterov(weights, group)
            if group["steps"] is not None:
                _rescale(weights)
                updates = _orthogonalised(updates, group["steps"])
            _descend(weights, updates, group["lr"])
        return loss

    def _nesterov(self, weights: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        gradients = [w.grad for w in weights if w.grad is not None]
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["velocity"] = torch.zeros_like(weight)
        velocities = [self.state[weight]["velocity"] for weight in weights]
        if group["weight_decay"]:
            gradients = torch._foreach_add(gradients, weights, alpha=group["weight_decay"])
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, gradients)
        return list(torch._foreach_add(gradients, velocities, alpha=group["momentum"]))


def _rescale(filters: list[Tensor]) -> None:
    """Scales filters (out, in, h, w) to Frobenius norm sqrt(out); those that are zero stay zero."""
    wide = torch.promote_types(filters[0].dtype, torch.float32)
    factors = torch._foreach_clamp_min(torch._foreach_norm(filters, 2, dtype=wide), TINY)
    torch._foreach_reciprocal_(factors)
    torch._foreach_mul_(factors, [len(w) ** 0.5 for w in filters])
    torch._foreach_mul_(filters, factors)


def _orthogonalised(updates: list[Tensor], steps: int) -> list[Tensor]:
    """Orthogonalises updates of filters; those of the same shape in one stack."""
    # the memory order of channels_last filters; orthogonalisation does not depend on the order of columns
    matrices = [update.permute(0, 2, 3, 1).flatten(1) for update in updates]
    by_shape: dict[torch.Size, list[int]] = {}
    for i, matrix in enumerate(matrices):
        by_shape.setdefault(matrix.shape, []).append(i)
    found = list(updates)
    for stack in by_shape.values():
        same = torch.stack([matrices[i] for i in stack]) if len(stack) > 1 else matrices[stack[0]][None]
        for i, matrix in zip(stack, orthogonalise(same, steps), strict=True):
            out, inputs, height, width = updates[i].shape
            found[i] = matrix.view(out, height, width, inputs).permute(0, 3, 1, 2)
    return found


def _descend(weights: list[Tensor], updates: list[Tensor], lr: float | Tensor) -> None:
    if isinstance(lr, Tensor):
        torch._foreach_sub_(weights, torch._foreach_mul(updates, lr))
    else:
        torch._foreach_add_(weights, updates, alpha=-lr)


@register_optimizer("muon")
@dataclass(frozen=True, kw_only=True, slots=True)
class MuonConfig(OptimizerConfig):
    """Muon on the filters of the convolutions; SGD with Nesterov momentum on everything else.

    Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    """

    lr: float = 0.24
    """Peak learning rate of the filters, in (0, 1e9]; the update it multiplies has a spectral norm of about 1."""
    momentum: float = 0.6
    """Nesterov momentum of the filters, in [0, 1)."""
    steps: int = 3
    """Newton-Schulz iterations that orthogonalise an update, 0 to 20.
    0 only rescales it to Frobenius norm sqrt(min(m, n))."""
    bias_lr: float = 0.053
    """Peak learning rate of biases and batch-norm parameters, in (0, 1e9], for a loss summed over the batch.
    The rate for the mean loss is batch_size times this."""
    head_lr: float = 0.67
    """Peak learning rate of the last layer, in (0, 1e9], for a loss summed over the batch, as `bias_lr`."""
    sgd_momentum: float = 0.85
    """Nesterov momentum of biases and the last layer, in [0, 1)."""
    weight_decay: float = 0.0
    """L2 penalty on biases and the last layer, 0 or more: weight_decay / lr * weight is added to the gradient, where lr
    is their peak rate. Filters have none, as they are rescaled before each step."""

    def __post_init__(self) -> None:
        require_finite(self, "optimizer.")
        require_rates(self, "lr", "bias_lr", "head_lr")
        require_decays(self, "momentum", "sgd_momentum")
        require(0 <= self.steps <= 20, f"optimizer.steps is {self.steps}, but must be between 0 and 20")
        require(self.weight_decay >= 0, f"optimizer.weight_decay is {self.weight_decay}, but must not be negative")

    def build(self, model: nn.Module, batch_size: int) -> Muon:
        """See `OptimizerConfig.build`: the filters, the matrices ("head") and all other parameters are a group each."""
        learning = [p for p in model.parameters() if p.requires_grad]
        filters = [p for p in learning if p.ndim == 4]
        groups: list[dict[str, Any]] = [{"name": "filters", "params": filters, "lr": self.lr}]
        others = (
            ("biases", [p for p in learning if p.ndim not in (2, 4)], batch_size * self.bias_lr),
            ("head", [p for p in learning if p.ndim == 2], batch_size * self.head_lr),
        )
        for name, parameters, lr in others:
            sgd = {"lr": lr, "momentum": self.sgd_momentum, "steps": None}
            # the update multiplies the penalty by lr again: the decay per step does not depend on lr
            groups.append({"name": name, "params": parameters, "weight_decay": self.weight_decay / lr, **sgd})
        return Muon([group for group in groups if group["params"]], momentum=self.momentum, steps=self.steps)
