"""Learning rates and momenta of every step of a run, known before anything is trained."""

from dataclasses import dataclass

import numpy as np

from fastcifar.config import Config
from fastcifar.data.cifar10 import CLASS_NAMES
from fastcifar.models.build import outline
from fastcifar.optim.rates import set_lr
from fastcifar.training.steps import lr_scale, total_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Learning rates and momenta of a run, by parameter group."""

    recipe: str
    steps_per_epoch: int
    rates: dict[str, np.ndarray]
    """float64 (steps,) for each group of the optimiser."""
    momenta: dict[str, np.ndarray]
    """float64 (steps,) for each group that has a momentum."""

    @property
    def first_rates(self) -> np.ndarray:
        """The rates of the first group, float64 (steps,)."""
        return next(iter(self.rates.values()))

    @property
    def epochs(self) -> np.ndarray:
        """Epochs completed before each step, float64 (steps,)."""
        return np.arange(len(self.first_rates)) / self.steps_per_epoch

    @property
    def marks(self) -> dict[str, dict[str, float]]:
        """Iteration, epoch and learning rate of the first ("start"), the highest ("peak") and the last step ("end").

        The rates are those of the first group.
        """
        lr = self.first_rates
        at = {"start": 0, "peak": int(np.argmax(lr)), "end": len(lr) - 1}
        return {
            name: {"iteration": step, "epoch": step / self.steps_per_epoch, "lr": float(lr[step])}
            for name, step in at.items()
        }


def plan(config: Config, steps_per_epoch: int) -> Plan:
    """The plan of a run of `config` with `steps_per_epoch` steps per epoch: what the trainer will set, step by step."""
    optimizer = config.optimizer.build(outline(config.model, len(CLASS_NAMES)), config.batch_size)
    total = total_steps(config.epochs, steps_per_epoch)
    steps = [set_lr(optimizer, lr_scale(config, step, total)) for step in range(total)]
    return Plan(
        recipe=config.recipe,
        steps_per_epoch=steps_per_epoch,
        rates={name: np.array([step.lr[name] for step in steps]) for name in steps[0].lr},
        momenta={name: np.array([step.momentum[name] for step in steps]) for name in steps[0].momentum},
    )
