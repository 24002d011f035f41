"""Triangular cycles of the learning rate (L. Smith, arXiv 1506.01186), as pure functions of the step.

    peak      /\\          /\\
             /  \\        /  \\        amplitude = peak - base
    base  __/    \\______/    \\__
            |step_size|               a cycle is 2 * step_size: up, then down

`triangular2` halves the amplitude after each cycle, `exp_range` multiplies it by gamma at each step.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fastcifar.config.components import LARGEST_LR, require, require_each, require_finite

CycleKind = Literal["triangular", "triangular2", "exp_range"]
MOST_STEPS = 10_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Cycles:
    """Cycles between two learning rates; raises UserError for a value out of range."""

    kind: CycleKind = "triangular"
    base: float = 0.001
    """Learning rate at both ends of each cycle, in [0, 1e9)."""
    peak: float = 0.006
    """Learning rate in the middle of the first cycle, above `base` and at most 1e9."""
    step_size: int = 2000
    """Steps from base to peak, half a cycle, at least 1; the paper advises 2 to 10 epochs."""
    cycles: int = 3
    """Number of cycles, at least 1."""
    gamma: float = 0.99994
    """Factor on the amplitude per step for exp_range, in (0, 1]."""

    def __post_init__(self) -> None:
        require_finite(self)
        require(0 <= self.base < LARGEST_LR, f"base is {self.base}, but must be at least 0 and below {LARGEST_LR:g}")
        require(
            self.base < self.peak <= LARGEST_LR,
            f"peak is {self.peak}, but must be above base, {self.base}, and at most {LARGEST_LR:g}",
        )
        require_each(self, "", ("step_size", "cycles"), lambda count: count >= 1, "at least 1")
        require(self.total <= MOST_STEPS, f"the cycles have {self.total} steps, but must have at most {MOST_STEPS}")
        require(0 < self.gamma <= 1, f"gamma is {self.gamma}, but must be above 0 and at most 1")

    @property
    def amplitude(self) -> float:
        """peak - base."""
        return self.peak - self.base

    @property
    def total(self) -> int:
        """Steps of all cycles."""
        return 2 * self.step_size * self.cycles


def cyclic(step: int, config: Cycles) -> float:
    """Learning rate of `step` >= 0, as torch's CyclicLR with step_size_up = step_size computes it."""
    cycle = step // (2 * config.step_size)
    fraction = 1 - abs(step / config.step_size - 2 * cycle - 1)  # 0 at the ends of a cycle, 1 in its middle
    scale = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": math.pow(config.gamma, step)}[config.kind]
    return config.base + config.amplitude * fraction * scale


def cyclic_rates(config: Cycles) -> np.ndarray:
    """Learning rates of all steps and, at the base again, of the step after the last one: float64 (total + 1,)."""
    return np.array([cyclic(step, config) for step in range(config.total + 1)])
