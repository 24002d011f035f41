"""`fastcifar schedule`: the learning rates that a recipe plans, or triangular cycles, as an image."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from fastcifar.config import Config
from fastcifar.errors import UserError

DESCRIPTION = """Draw a schedule without training: schedule.png, and schedule.json with --json.

By default the learning rates and momenta that a recipe plans; all flags of `fastcifar train` can be given as
well. --kind triangular draws the zigzag of arXiv 1506.01186 between --base and --peak; triangular2 halves it with
every cycle, exp_range shrinks it by --gamma at every step.
"""


@dataclass(frozen=True, kw_only=True)
class ScheduleArguments:
    """What to draw, and the configuration it may be of."""

    kind: Literal["recipe", "triangular", "triangular2", "exp_range"] = "recipe"
    """The plan of the recipe, or cycles; the flags from --base to --gamma are for cycles only."""
    base: float = 0.001
    """Learning rate at the ends of a cycle."""
    peak: float | None = None
    """Learning rate in the middle of the first cycle; by default base + amplitude."""
    amplitude: float | None = None
    """Height of the first cycle, peak - base; by default 0.005."""
    step_size: int = 2000
    """Steps from base to peak, half a cycle."""
    cycles: int = 3
    """How many."""
    gamma: float = 0.99994
    """Of exp_range: factor on the amplitude at every step."""
    json: bool = False
    """Write schedule.json as well, with the rates of all steps."""
    out: Path = Path("schedule")
    """Folder for schedule.png and schedule.json."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def main(arguments: list[str]) -> None:
    """Parses, draws, prints. Raises UserError."""
    from fastcifar.cli.config_args import parse_with_config

    options = parse_with_config(ScheduleArguments(), arguments, DESCRIPTION, prog="fastcifar schedule")
    text, facts, figure = recipe_plan(options.config) if options.kind == "recipe" else triangle(options)

    from fastcifar.files import atomic_path, write_json

    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {options.out}: {error.strerror}; choose another --out") from None
    with atomic_path(options.out / "schedule.png") as temporary:
        figure.savefig(temporary, format="png")
    if options.json:
        write_json(options.out / "schedule.json", facts)
    print(f"{text}\nimage   {options.out / 'schedule.png'}")


def recipe_plan(config: Config) -> tuple[str, dict[str, Any], Any]:
    """The plan of a configuration as text, as JSON values and as a Figure."""
    from fastcifar.analysis.rate_plots import draw_plan
    from fastcifar.data.cifar10 import TRAIN_SAMPLES
    from fastcifar.data.prepared import load_manifest
    from fastcifar.optim.plan import plan

    try:
        samples = load_manifest(config.data).splits["train"].samples
    except UserError:
        samples = TRAIN_SAMPLES
        print(f"no prepared data in {config.data}: planned for CIFAR-10's {samples} images", file=sys.stderr)
    if config.batch_size > samples:
        raise UserError(f"batch_size is {config.batch_size}, but the training set has {samples} images")
    planned = plan(config, samples // config.batch_size)
    lines = [
        f"{name:8}  {at['lr']:.4g} at iteration {at['iteration']}, epoch {at['epoch']:.2f}"
        for name, at in planned.marks.items()
    ]
    facts = {
        "recipe": config.recipe,
        "iterations": len(planned.epochs),
        "steps_per_epoch": planned.steps_per_epoch,
        **planned.marks,
        "rates": {name: rates.tolist() for name, rates in planned.rates.items()},
        "momenta": {name: values.tolist() for name, values in planned.momenta.items()},
    }
    return "\n".join(lines), facts, draw_plan(planned)


def triangle(options: ScheduleArguments) -> tuple[str, dict[str, Any], Any]:
    """The cycles as text, as JSON values and as a Figure."""
    from dataclasses import asdict

    from fastcifar.analysis.rate_plots import draw_cycles
    from fastcifar.optim.cyclic import Cycles, cyclic_rates

    if options.peak is not None and options.amplitude is not None:
        raise UserError("--peak and --amplitude say the same, peak = base + amplitude: give one of them")
    peak = (
        options.base + (0.005 if options.amplitude is None else options.amplitude)
        if options.peak is None
        else options.peak
    )
    shared = {name: getattr(options, name) for name in ("kind", "base", "step_size", "cycles", "gamma")}
    cycles = Cycles(peak=peak, **shared)
    text = f"{cycles.kind}: {cycles.total} iterations between {cycles.base:.4g} and {cycles.peak:.4g}"
    facts = asdict(cycles) | {"amplitude": cycles.amplitude, "rates": cyclic_rates(cycles).tolist()}
    return text, facts, draw_cycles(cycles)
