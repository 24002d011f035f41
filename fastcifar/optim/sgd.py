"""SGD with momentum: torch.optim.SGD."""

from dataclasses import dataclass

import torch
from torch import nn

from fastcifar.config import OptimizerConfig, register_optimizer
from fastcifar.config.components import require, require_decays, require_finite, require_rates


@register_optimizer("sgd")
@dataclass(frozen=True, kw_only=True, slots=True)
class SgdConfig(OptimizerConfig):
    """SGD with momentum on all parameters."""

    lr: float = 0.1
    """Peak learning rate, in (0, 1e9]."""
    momentum: float = 0.9
    """Fraction of the previous update that is kept, in [0, 1)."""
    nesterov: bool = False
    """Use Nesterov momentum (Sutskever et al., ICML 2013)."""
    weight_decay: float = 0.0
    """L2 penalty, 0 or more: weight_decay * weight is added to the gradient."""

    def __post_init__(self) -> None:
        require_finite(self, "optimizer.")
        require_rates(self, "lr")
        require_decays(self, "momentum")
        require(self.weight_decay >= 0, f"optimizer.weight_decay is {self.weight_decay}, but must not be negative")

    def build(self, model: nn.Module, batch_size: int) -> torch.optim.SGD:
        """See `OptimizerConfig.build`."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(
            parameters,
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            fused=any(p.is_cuda for p in parameters),  # rounds differently, and a CPU gains nothing
        )
        if self.momentum:  # torch's fused step fails where one parameter gets its first gradient after the others
            for parameter in parameters:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
