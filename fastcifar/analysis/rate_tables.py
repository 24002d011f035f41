"""Learning rates as text and as JSON: of a range test, of a recipe's schedule, of triangular cycles."""

import math
from dataclasses import asdict
from typing import Any

import numpy as np

from fastcifar.analysis.cyclic import Cycles, cyclic_rates
from fastcifar.analysis.lr_range import RangeTest
from fastcifar.analysis.lr_search import Curve
from fastcifar.analysis.plan import Plan
from fastcifar.config import Config
from fastcifar.data.cifar10 import not_cifar10


def as_json(test: RangeTest, config: Config) -> dict[str, Any]:
    """A range test and the rates found, "max" and "min". The loss of a training that diverged is null."""
    rates = test.found
    return {
        "recipe": test.recipe,
        "dataset": test.dataset,
        "seed": config.seed,
        "batch_size": config.batch_size,
        "steps": test.total,
        "seconds": round(test.seconds, 4),
        "max": rates.maximum,
        "min": rates.minimum,
        "power": round(rates.power, 4),
        "trainings": [
            {
                "steps": curve.steps,
                "guessing": curve.guessing,
                "rates": curve.rates.tolist(),
                "losses": [loss if math.isfinite(loss) else None for loss in curve.losses.tolist()],
            }
            for curve in (test.short, test.long)
        ],
    }


def from_json(values: dict[str, Any]) -> RangeTest:
    """The range test of `as_json`. Raises KeyError, TypeError or ValueError for anything else."""
    short, long = (
        Curve(
            steps=one["steps"],
            rates=np.array(one["rates"], float),
            losses=np.array([math.inf if loss is None else loss for loss in one["losses"]], float),
            guessing=one["guessing"],
        )
        for one in values["trainings"]
    )
    facts = {name: values[name] for name in ("seconds", "dataset", "recipe")}
    return RangeTest(short=short, long=long, total=values["steps"], **facts)


def table(test: RangeTest) -> str:
    """The rates found and how; data other than CIFAR-10 is marked."""
    mark, rates = not_cifar10(test.dataset), test.found
    lines = [f"maximum   {rates.maximum:.3g}{mark}", f"minimum   {rates.minimum:.3g}{mark}"]
    for curve in (test.short, test.long):
        span = f"{len(curve.rates)} rates from {curve.rates[0]:.3g} to {curve.rates[-1]:.3g}"
        lines.append(f"trainings {span}, {curve.steps} steps each: lowest loss at {curve.best:.3g}{mark}")
    lines.append(f"seconds   {test.seconds:.1f}{mark}")
    return "\n".join([*lines, *advice(test).splitlines()])


def advice(test: RangeTest) -> str:
    """What to do with the result of a range test, in two or three lines."""
    rates = test.found
    lines = [
        f"Let the schedule peak at {rates.maximum:.3g}, and start and end at {rates.minimum:.3g}: train --lr found.",
        "Lower rates learn little in a short training, higher ones disturb it.",
    ]
    if rates.power:
        lines.append(
            f"The best rate grows with the length; it is carried on from {test.long.steps} to {test.total} steps."
        )
    return "\n".join(lines)


def plan_as_json(plan: Plan) -> dict[str, Any]:
    """The schedule of a recipe: its start, peak and end, and the learning rates and momenta of every iteration."""
    return {
        "recipe": plan.recipe,
        "iterations": len(plan.epochs),
        "steps_per_epoch": plan.steps_per_epoch,
        **plan.marks,
        "rates": {name: rates.tolist() for name, rates in plan.rates.items()},
        "momenta": {name: values.tolist() for name, values in plan.momenta.items()},
    }


def plan_table(plan: Plan) -> str:
    """Start, peak and end of a schedule, a line each."""
    return "\n".join(
        f"{name:8}  {at['lr']:.4g} at iteration {at['iteration']}, epoch {at['epoch']:.2f}"
        for name, at in plan.marks.items()
    )


def cycles_as_json(cycles: Cycles) -> dict[str, Any]:
    """The parameters of cycles, and the learning rate of every step and of the one after the last."""
    return asdict(cycles) | {"amplitude": cycles.amplitude, "rates": cyclic_rates(cycles).tolist()}
