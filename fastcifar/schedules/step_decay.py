"""A constant learning rate that drops once."""

from dataclasses import dataclass

from fastcifar.config import ScheduleConfig, register_schedule
from fastcifar.config.components import require, require_finite


@register_schedule("step_decay")
@dataclass(frozen=True, kw_only=True, slots=True)
class StepDecay(ScheduleConfig):
    """The peak until `drop_epoch`, then `factor` times the peak."""

    drop_epoch: float = 1.0
    """Epoch of the drop, 0 or more and at most `epochs`."""
    factor: float = 0.1
    """Learning rate after the drop as a fraction of the peak, in [0, 1]."""

    def __post_init__(self) -> None:
        require_finite(self, "schedule.")
        require(self.drop_epoch >= 0, f"schedule.drop_epoch is {self.drop_epoch}, but must not be negative")
        require(0 <= self.factor <= 1, f"schedule.factor is {self.factor}, but must be between 0 and 1")

    def lr_scale(self, step: int, total: int, epochs: float) -> float:
        """See `ScheduleConfig.lr_scale`; step drop_epoch / epochs * total - 1 is the last before the drop."""
        return 1.0 if step <= self.drop_epoch / epochs * total - 1 else self.factor

    def check(self, epochs: float) -> None:
        """Raises UserError if the drop lies behind the end of the run."""
        require(
            self.drop_epoch <= epochs,
            f"schedule.drop_epoch is {self.drop_epoch:g}, but the run ends at epoch {epochs:g}; lower it",
        )
