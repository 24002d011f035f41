"""SGD, Adam and Muon. A step is told its learning rate as a lr_scale of the peak: no optimiser has a clock of its own."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from fastcifar.config import AdamConfig, MuonConfig, OptimizerConfig, SgdConfig

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic whose iteration drives singular values towards 1 (K. Jordan et al., "Muon", 2024)."""


class Optimizer(Protocol):
    """Updates a model's parameters from their gradients."""

    param_groups: list[dict[str, list[Tensor]]]
    """`[{"params": ...}]`, by which torch's gradient scaler finds the gradients."""

    capturable: bool
    """Whether a step may be recorded in a CUDA graph: it reads nothing on the host but its arguments."""

    def step(self, lr_scale: float | Tensor) -> None:
        """One update at `lr_scale` of the peak learning rates; a 0-d tensor on the device where a graph records it."""
        ...

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What it remembers between steps, by name: the tensors themselves, to be saved or copied into."""
        ...


class Sgd:
    """SGD with momentum; Nesterov and decoupled weight decay by option. Equal to torch.optim.SGD where that has them.

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
        """One update; parameters without a gradient are left alone."""
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
            _descend(weight, gradient, lr)

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for p in self.parameters:
            p.grad = None

    def state(self) -> dict[str, Tensor]:
        """The velocities."""
        return _numbered("velocity", self.velocity)


class Adam:
    """Adam, or AdamW where weight decay is decoupled. Equal to torch's, but for one count of steps for all parameters.

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
        self.count = torch.zeros((), dtype=torch.int64)  # steps taken; on the CPU, where it is read
        self.param_groups = [{"params": self.parameters}]

    @torch.no_grad()
    def step(self, lr_scale: float | Tensor) -> None:
        """One update; parameters without a gradient are left alone."""
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
        """Forgets the gradients."""
        for p in self.parameters:
            p.grad = None

    def state(self) -> dict[str, Tensor]:
        """The moments and the number of steps."""
        return {**_numbered("first", self.first), **_numbered("second", self.second), "count": self.count}


def orthogonalise(updates: Tensor, steps: int) -> Tensor:
    """Nearest semi-orthogonal matrices of a stack (k, m, n), roughly; all of it in one batched product.

    A quintic Newton-Schulz iteration on the smaller side. Singular values above 0.017 of the Frobenius norm end
    between 0.65 and 1.21 after 3 steps, those above 0.0015 after 5; smaller ones grow 3.4 times a step. A step
    multiplies x by a polynomial of x x^T, which is small and square, so all of them are multiplied first, and x once.
    No step at all turns nothing: the matrix at the Frobenius norm of an orthogonal one, sqrt(min(m, n)).
    """
    a, b, c = NEWTON_SCHULZ
    x = updates / (updates.flatten(1).norm(dim=1).view(-1, 1, 1) + 1e-7)
    if steps == 0:
        return x * min(x.size(1), x.size(2)) ** 0.5
    tall = x.size(1) > x.size(2)
    x = x.mT if tall else x
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
    """Momentum whose update is orthogonalised, on filters (out, in, h, w) seen as matrices (out, in * h * w).

    Before each step a filter bank is scaled to the Frobenius norm sqrt(out), so the learning rate alone sets how far
    the weights turn; the batch norm behind a block's convolution makes its scale meaningless otherwise.
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
            # as channels_last filters lie in memory; in which order the columns stand does not matter here
            update = weight.grad.add(velocity, alpha=self.momentum).permute(0, 2, 3, 1).flatten(1)
            updates.setdefault((update.size(0), update.size(1)), []).append((weight, update))
        for stack in updates.values():
            matrices = [update for _, update in stack]
            turned = orthogonalise(torch.stack(matrices) if len(stack) > 1 else matrices[0][None], self.steps)
            for (weight, _), update in zip(stack, turned, strict=True):
                weight.mul_(len(weight) ** 0.5 / weight.norm())
                out, inputs, height, width = weight.shape
                _descend(weight, update.view(out, height, width, inputs).permute(0, 3, 1, 2), self.lr * lr_scale)

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for p in self.filters:
            p.grad = None

    def state(self) -> dict[str, Tensor]:
        """The velocities."""
        return _numbered("velocity", self.velocity)


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
        """Forgets the gradients of each part."""
        for part in self.parts:
            part.zero_grad()

    def state(self) -> dict[str, Tensor]:
        """The states of all parts."""
        return {f"{i}.{name}": tensor for i, part in enumerate(self.parts) for name, tensor in part.state().items()}


def _descend(weight: Tensor, update: Tensor, lr: float | Tensor) -> None:
    if isinstance(lr, Tensor):
        weight.addcmul_(update, lr, value=-1)
    else:
        weight.add_(update, alpha=-lr)


def _numbered(name: str, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    return {f"{name}.{i}": tensor for i, tensor in enumerate(tensors)}


def build_optimizer(model: nn.Module, config: OptimizerConfig, batch_size: int) -> Optimizer:
    """The configured optimiser over the parameters of `model` that learn, for gradients of the mean loss of a batch."""
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if isinstance(config, SgdConfig):
        return Sgd(
            list(learning.values()),
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
            decoupled=config.decoupled,
        )
    if isinstance(config, AdamConfig):
        return Adam(
            list(learning.values()),
            lr=config.lr,
            beta1=config.beta1,
            beta2=config.beta2,
            eps=config.eps,
            weight_decay=config.weight_decay,
            decoupled=config.decoupled,
        )
    filters = [p for p in learning.values() if p.ndim == 4]
    head = [p for p in learning.values() if p.ndim == 2]
    biases = [p for p in learning.values() if p.ndim == 1]
    return Combined(
        [
            Muon(filters, lr=config.lr, momentum=config.momentum, steps=config.steps),
            _nesterov(biases, batch_size * config.bias_lr, config),
            _nesterov(head, batch_size * config.head_lr, config),
        ]
    )


def _nesterov(parameters: Sequence[Tensor], lr: float, config: MuonConfig) -> Sgd:
    decay = config.weight_decay / lr  # so that it takes the same lr_scale off a weight whatever the learning rate
    return Sgd(parameters, lr=lr, momentum=config.sgd_momentum, nesterov=True, weight_decay=decay)
