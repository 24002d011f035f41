"""Muon: momentum with orthogonalised updates, for the filters of convolutions.

Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fastcifar.optim.sgd import descend, numbered

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of Muon's quintic iteration, which drives singular values towards 1."""


def orthogonalise(updates: Tensor, steps: int) -> Tensor:
    """Approximate nearest semi-orthogonal matrices of a stack (k, m, n), by a quintic Newton-Schulz iteration.

    Singular values above 0.017 of the Frobenius norm end between 0.65 and 1.21 after 3 steps, those above 0.0015 after
    5; smaller ones grow by a factor of 3.4 per step. `steps=0` only rescales to Frobenius norm sqrt(min(m, n)).
    """
    a, b, c = NEWTON_SCHULZ
    x = updates / (updates.flatten(1).norm(dim=1).view(-1, 1, 1) + 1e-7)
    if steps == 0:
        return x * min(x.size(1), x.size(2)) ** 0.5
    tall = x.size(1) > x.size(2)
    x = x.mT if tall else x
    # each step multiplies x by a polynomial of x x^T, the small square one: multiply the polynomials first, then x once
    gram, identity = x @ x.mT, torch.eye(x.size(1), device=x.device, dtype=x.dtype)
    product = identity
    for step in range(steps):
        factor = a * identity + torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        product = factor if step == 0 else factor @ product
        if step + 1 < steps:
            gram = factor @ gram @ factor
    x = product @ x
    return x.mT if tall else x


class Muon:
    """Nesterov momentum with orthogonalised updates, on filters (out, in, h, w) seen as matrices (out, in * h * w).

    Each step first scales a layer's filters to Frobenius norm sqrt(out), so that the learning rate alone sets the
    rotation per step. Batch norm behind the convolution makes the norm itself irrelevant.
    """

    capturable = True

    def __init__(self, filters: Sequence[Tensor], *, lr: float, momentum: float, steps: int) -> None:
        self.filters, self.lr, self.momentum, self.steps = list(filters), lr, momentum, steps
        self.velocity = [torch.zeros_like(p) for p in self.filters]
        self.param_groups = [{"params": self.filters}]

    @torch.no_grad()
    def step(self, lr_scale: float | Tensor) -> None:
        """One update; filters of the same shape are orthogonalised in one stack."""
        updates: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for weight, velocity in zip(self.filters, self.velocity, strict=True):
            if weight.grad is None:
                continue
            velocity.mul_(self.momentum).add_(weight.grad)
            # the memory order of channels_last filters; orthogonalisation does not depend on the order of columns
            update = weight.grad.add(velocity, alpha=self.momentum).permute(0, 2, 3, 1).flatten(1)
            updates.setdefault((update.size(0), update.size(1)), []).append((weight, update))
        for stack in updates.values():
            matrices = [update for _, update in stack]
            turned = orthogonalise(torch.stack(matrices) if len(stack) > 1 else matrices[0][None], self.steps)
            for (weight, _), update in zip(stack, turned, strict=True):
                weight.mul_(len(weight) ** 0.5 / weight.norm())
                out, inputs, height, width = weight.shape
                descend(weight, update.view(out, height, width, inputs).permute(0, 3, 1, 2), self.lr * lr_scale)

    def zero_grad(self) -> None:
        """Sets the gradients to None."""
        for p in self.filters:
            p.grad = None

    def state(self) -> dict[str, Tensor]:
        """The velocities."""
        return numbered("velocity", self.velocity)
