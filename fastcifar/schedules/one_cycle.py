"""One cycle: up to the peak and down again (L. Smith and N. Topin, arXiv 1708.07120)."""

import math
from dataclasses import dataclass, replace
from typing import Literal, Self

from fastcifar.config import ScheduleConfig, register_schedule
from fastcifar.config.components import require, require_each, require_finite


@register_schedule("one_cycle")
@dataclass(frozen=True, kw_only=True, slots=True)
class OneCycle(ScheduleConfig):
    """From `start` up to the peak and down to `end`.

    Steps are counted as in torch's OneCycleLR with pct_start = peak_epoch / epochs, div_factor = 1 / start and
    final_div_factor = start / end: the peak is step pct_start * total - 1, the end step total - 1.
    """

    peak_epoch: float = 5.0
    """Epoch of the highest learning rate, 0 or more and at most `epochs`; 0 starts the run at the peak."""
    start: float = 0.1
    """Learning rate of the first step as a fraction of the peak, in [0, 1]."""
    end: float = 0.1
    """Learning rate of the last step as a fraction of the peak, in [0, 1]; equal to `start` for no annihilation."""
    anneal: Literal["linear", "cos"] = "linear"
    """Shape of the rise and the fall."""

    def __post_init__(self) -> None:
        require_finite(self, "schedule.")
        require(self.peak_epoch >= 0, f"schedule.peak_epoch is {self.peak_epoch}, but must not be negative")
        require_each(self, "schedule.", ("start", "end"), lambda scale: 0 <= scale <= 1, "between 0 and 1")

    def lr_scale(self, step: int, total: int, epochs: float) -> float:
        """See `ScheduleConfig.lr_scale`."""
        top, last = self.peak_epoch / epochs * total - 1, total - 1
        if step <= top:
            return self._anneal(self.start, 1.0, step / top if top > 0 else 1.0)
        top = max(top, 0.0)  # a run that starts at its peak, or has a single step
        return self._anneal(1.0, self.end, (step - top) / (last - top) if last > top else 0.0)

    def check(self, epochs: float) -> None:
        """Raises UserError if the peak lies behind the end of the run."""
        require(
            self.peak_epoch <= epochs,
            f"schedule.peak_epoch is {self.peak_epoch:g}, but the run ends at epoch {epochs:g}; lower it",
        )

    def with_ends(self, lr_scale: float) -> Self:
        """See `ScheduleConfig.with_ends`; an end that is the peak or 0 is not a rate to be found."""
        ends = {name: lr_scale for name in ("start", "end") if 0 < getattr(self, name) < 1}
        return replace(self, **ends)

    def _anneal(self, begin: float, end: float, fraction: float) -> float:
        if self.anneal == "cos":
            return end + (begin - end) / 2 * (1 + math.cos(math.pi * fraction))
        return begin + (end - begin) * fraction
