"""Triangular cycles of the learning rate, the zigzag of arXiv 1506.01186 (L. Smith), as pure functions of the step.

    peak      /\\          /\\
             /  \\        /  \\        amplitude = peak - base
    base  __/    \\______/    \\__
            |step_size|               a cycle is two of them: up, then down

`triangular2` halves the amplitude with every cycle, `exp_range` multiplies it with gamma at every step.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fastcifar.config.components import LARGEST_LR, require, require_finite

CycleKind = Literal["triangular", "triangular2", "exp_range"]
MOST_STEPS = 10_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Cycles:
    """A zigzag between two learning rates; raises UserError for a value that is refused."""

    kind: CycleKind = "triangular"
    base: float = 0.001
    """Learning rate at the ends of each cycle."""
    peak: float = 0.006
    """Learning rate in the middle of the first cycle."""
    step_size: int = 2000
    """Steps from base to peak, half a cycle; the paper advises 2 to 10 epochs' worth."""
    cycles: int = 3
    """How many."""
    gamma: float = 0.99994
    """Of exp_range: factor on the amplitude at every step, in (0, 1]."""

    def __post_init__(self) -> None:
        require_finite(self)
        require(0 <= self.base < LARGEST_LR, f"base is {self.base}, but must be at least 0 and below {LARGEST_LR:g}")
        require(
            self.base < self.peak <= LARGEST_LR,
            f"peak is {self.peak}, but must be above base, {self.base}, and at most {LARGEST_LR:g}",
        )
        for name in ("step_size", "cycles"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}, but must be at least 1")
        require(self.total <= MOST_STEPS, f"the cycles have {self.total} steps, but may have {MOST_STEPS} at most")
        require(0 < self.gamma <= 1, f"gamma is {self.gamma}, but must be above 0 and at most 1")

    @property
    def amplitude(self) -> float:
        """Height of the first cycle."""
        return self.peak - self.base

    @property
    def total(self) -> int:
        """Steps of all cycles."""
        return 2 * self.step_size * self.cycles


def cyclic(step: int, config: Cycles) -> float:
    """Learning rate of `step` >= 0; equal to torch's CyclicLR with step_size_up = step_size."""
    cycle = step // (2 * config.step_size)
    fraction = 1 - abs(step / config.step_size - 2 * cycle - 1)  # 0 at the ends of a cycle, 1 in its middle
    scale = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": math.pow(config.gamma, step)}[config.kind]
    return config.base + config.amplitude * fraction * scale


def cyclic_rates(config: Cycles) -> np.ndarray:
    """Learning rates of all steps and of the one behind them, back at the base: float64 (total + 1,)."""
    return np.array([cyclic(step, config) for step in range(config.total + 1)])
