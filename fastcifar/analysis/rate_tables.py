"""Learning rates as text and as JSON: of a range test, of a recipe's schedule, of triangular cycles."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fastcifar.analysis.cyclic import Cycles, cyclic_rates
from fastcifar.analysis.lr_range import RangeTest
from fastcifar.analysis.lr_suggest import Method, Suggestion
from fastcifar.analysis.plan import Plan
from fastcifar.config import Config
from fastcifar.data.cifar10 import not_cifar10


def as_json(
    test: RangeTest, suggestions: Mapping[Method, Suggestion], method: Method, config: Config
) -> dict[str, Any]:
    """A range test and its suggestions. A loss that is not finite is null, "max" and "min" are without suggestions."""
    chosen = suggestions.get(method)
    return {
        "recipe": test.recipe,
        "dataset": test.dataset,
        "seed": config.seed,
        "batch_size": config.batch_size,
        "kind": test.kind,
        "from": float(test.rates[0]),
        "iterations": test.iterations,
        "diverged": test.diverged,
        "seconds": round(test.seconds, 4),
        "method": method,
        "max": None if chosen is None else chosen.maximum,
        "min": None if chosen is None else chosen.minimum,
        "suggestions": {name: {"max": found.maximum, "min": found.minimum} for name, found in suggestions.items()},
        "rates": test.rates.tolist(),
        "losses": [loss if math.isfinite(loss) else None for loss in test.losses.tolist()],
        "smoothed": {"rates": test.curve.rates.tolist(), "losses": test.curve.smooth.tolist()},
    }


def table(test: RangeTest, suggestions: Mapping[Method, Suggestion], method: Method) -> str:
    """The suggestions of a range test, a star behind the chosen method; data other than CIFAR-10 is marked."""
    mark = not_cifar10(test.dataset)
    lines = ["method         max        min"]
    for name, found in suggestions.items():
        lines.append(f"{name:8}  {found.maximum:8.4g}  {found.minimum:9.4g}{'  *' if name == method else ''}{mark}")
    end = f"the loss diverged at {test.rates[-1]:.3g}" if test.diverged else f"no divergence up to {test.rates[-1]:.3g}"
    return "\n".join([*lines, f"test      {len(test.rates)} steps in {test.seconds:.1f} s; {end}{mark}"])


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
