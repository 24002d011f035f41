"""Adam and AdamW: torch.optim.Adam."""

from dataclasses import dataclass

import torch
from torch import nn

from fastcifar.config import OptimizerConfig, register_optimizer
from fastcifar.config.components import require, require_decays, require_finite, require_rates


@register_optimizer("adam")
@dataclass(frozen=True, kw_only=True, slots=True)
class AdamConfig(OptimizerConfig):
    """Adam on all parameters (arXiv 1412.6980)."""

    lr: float = 1e-3
    """Peak learning rate, in (0, 1e9]."""
    beta1: float = 0.9
    """Decay of the running mean of the gradients per step, in [0, 1)."""
    beta2: float = 0.999
    """Decay of the running mean of the squared gradients per step, in [0, 1)."""
    eps: float = 1e-8
    """Added to the denominator, above 0."""
    weight_decay: float = 0.0
    """L2 penalty: weight_decay * weight is added to the gradient; with `decoupled`, AdamW-style decay. 0 or more."""
    decoupled: bool = False
    """Multiply weights by 1 - lr * weight_decay instead, outside both running means: AdamW (arXiv 1711.05101)."""

    def __post_init__(self) -> None:
        require_finite(self, "optimizer.")
        require_rates(self, "lr")
        require_decays(self, "beta1", "beta2")
        require(self.eps > 0, f"optimizer.eps is {self.eps}, but must be above 0")
        require(self.weight_decay >= 0, f"optimizer.weight_decay is {self.weight_decay}, but must not be negative")

    def build(self, model: nn.Module, batch_size: int) -> torch.optim.Adam:
        """See `OptimizerConfig.build`."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        return torch.optim.Adam(
            parameters,
            lr=self.lr,
            betas=(self.beta1, self.beta2),
            eps=self.eps,
            weight_decay=self.weight_decay,
            decoupled_weight_decay=self.decoupled,
            fused=any(p.is_cuda for p in parameters),  # rounds differently, and a CPU gains nothing
        )
