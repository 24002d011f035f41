"""Learning rates and momenta of every step of a run, known before anything is trained."""

from dataclasses import asdict, dataclass

import numpy as np

from fastcifar.config import Config
from fastcifar.optim.schedules import one_cycle, total_steps

MOMENTA = ("momentum", "sgd_momentum", "beta1")
"""Fields of the optimiser configurations that are a momentum; they stay constant during a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Learning rates and momenta of a run."""

    recipe: str
    steps_per_epoch: int
    rates: dict[str, np.ndarray]
    """float64 (steps,) for each learning rate of the optimiser, by field name; the first is `lr`."""
    momenta: dict[str, np.ndarray]
    """float64 (steps,) for each momentum of the optimiser, by field name."""

    @property
    def epochs(self) -> np.ndarray:
        """Epochs completed before each step, float64 (steps,)."""
        return np.arange(len(self.rates["lr"])) / self.steps_per_epoch

    @property
    def marks(self) -> dict[str, dict[str, float]]:
        """Iteration, epoch and learning rate of the first ("start"), the highest ("peak") and the last step ("end")."""
        lr = self.rates["lr"]
        at = {"start": 0, "peak": int(np.argmax(lr)), "end": len(lr) - 1}
        return {
            name: {"iteration": step, "epoch": step / self.steps_per_epoch, "lr": float(lr[step])}
            for name, step in at.items()
        }


def plan(config: Config, steps_per_epoch: int) -> Plan:
    """The plan of a run of `config` with `steps_per_epoch` steps per epoch."""
    total, peak = total_steps(config.epochs, steps_per_epoch), config.schedule.peak_epoch / config.epochs
    lr_scales = np.array([one_cycle(step, total, peak, config.schedule) for step in range(total)])
    values = asdict(config.optimizer)
    return Plan(
        recipe=config.recipe,
        steps_per_epoch=steps_per_epoch,
        rates={name: value * lr_scales for name, value in values.items() if name == "lr" or name.endswith("_lr")},
        momenta={name: np.full(total, values[name]) for name in MOMENTA if name in values},
    )
