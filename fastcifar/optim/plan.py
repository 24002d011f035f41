"""What a configuration will do to its optimiser, step by step, before anything is trained."""

from dataclasses import dataclass, fields

import numpy as np

from fastcifar.config import Config
from fastcifar.optim.schedules import one_cycle, total_steps

MOMENTA = ("momentum", "sgd_momentum", "beta1")
"""Fields of the optimisers that are a momentum; no schedule here moves them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Learning rates and momenta of a run."""

    recipe: str
    steps_per_epoch: int
    rates: dict[str, np.ndarray]
    """Each float64 (steps,), by the optimiser's field; `lr` is the first one, the others are in proportion to it."""
    momenta: dict[str, np.ndarray]
    """Each float64 (steps,), by the optimiser's field."""

    @property
    def epochs(self) -> np.ndarray:
        """Epochs behind each step, float64 (steps,)."""
        return np.arange(len(self.rates["lr"])) / self.steps_per_epoch

    @property
    def marks(self) -> dict[str, dict[str, float]]:
        """The iterations to look at, "start", "peak" and "end": each its "iteration", "epoch" and "lr"."""
        lr = self.rates["lr"]
        at = {"start": 0, "peak": int(np.argmax(lr)), "end": len(lr) - 1}
        return {
            name: {"iteration": step, "epoch": step / self.steps_per_epoch, "lr": float(lr[step])}
            for name, step in at.items()
        }


def plan(config: Config, steps_per_epoch: int) -> Plan:
    """The plan of a run of `config` whose epochs have `steps_per_epoch` steps."""
    total, peak = total_steps(config.epochs, steps_per_epoch), config.schedule.peak_epoch / config.epochs
    shares = np.array([one_cycle(step, total, peak, config.schedule) for step in range(total)])
    values = {field.name: getattr(config.optimizer, field.name) for field in fields(config.optimizer)}
    return Plan(
        recipe=config.recipe,
        steps_per_epoch=steps_per_epoch,
        rates={name: value * shares for name, value in values.items() if name == "lr" or name.endswith("_lr")},
        momenta={name: np.full(total, values[name]) for name in MOMENTA if name in values},
    )
