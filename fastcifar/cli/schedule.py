"""`fastcifar schedule`: plots the schedule of a recipe, or triangular cycles."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from fastcifar.config import Config
from fastcifar.errors import UserError

DESCRIPTION = """Plot a learning-rate schedule without training. Writes <recipe>.png and, with --json, <recipe>.json.

By default the learning rates and momenta of a recipe are plotted; all settings of `fastcifar train` are flags here too.
--kind triangular plots the cycles of arXiv 1506.01186 between --base and --peak. triangular2 halves the amplitude with
every cycle, exp_range multiplies it by --gamma at every step.
The files of cycles are named after the kind.

--config FILE     read fields from a TOML file first
"""
AMPLITUDE = 0.005


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to plot, and the configuration for `--kind recipe`."""

    kind: Literal["recipe", "triangular", "triangular2", "exp_range"] = "recipe"
    """The schedule of the recipe, or cycles. The flags from --base to --gamma are for cycles."""
    base: float = 0.001
    """Learning rate at the ends of a cycle."""
    peak: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: base + amplitude)")] = (
        None
    )
    """Learning rate in the middle of the first cycle."""
    amplitude: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint=f"(default: {AMPLITUDE})")] = (
        None
    )
    """Height of the first cycle, peak - base."""
    step_size: int = 2000
    """Steps from base to peak, half a cycle."""
    cycles: int = 3
    """Number of cycles."""
    gamma: float = 0.99994
    """Factor on the amplitude at every step, for exp_range."""
    json: bool = False
    """Also write a JSON file with the learning rate of every step."""
    out: Path = Path("schedule")
    """Folder to write to."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def main(arguments: list[str]) -> None:
    """Raises UserError."""
    from fastcifar.cli.config_args import parse_with_config

    options = parse_with_config(Options(), arguments, DESCRIPTION, prog="fastcifar schedule")
    text, values, figure = _plan(options.config) if options.kind == "recipe" else _cycles(options)

    from fastcifar.analysis.figure_files import save_figure
    from fastcifar.cli.output_files import make_folder, written
    from fastcifar.files import write_json

    make_folder(options.out)
    name = options.config.recipe if options.kind == "recipe" else options.kind
    plot = written(options.out / f"{name}.png", lambda path: save_figure(figure, path))
    print(f"{text}\nplot      {plot}")
    if options.json:
        print(f"values    {written(options.out / f'{name}.json', lambda path: write_json(path, values))}")


def _plan(config: Config) -> tuple[str, dict[str, Any], Any]:
    """The schedule of a configuration as text, JSON values and a figure."""
    from fastcifar.analysis.plan import plan
    from fastcifar.analysis.rate_plots import draw_plan
    from fastcifar.analysis.rate_tables import plan_as_json, plan_table
    from fastcifar.data.cifar10 import TRAIN_SAMPLES
    from fastcifar.data.prepared import load_manifest

    try:
        samples = load_manifest(config.data).splits["train"].samples
    except UserError:
        samples = TRAIN_SAMPLES
        print(f"no prepared data in {config.data}: assuming CIFAR-10's {samples} training images", file=sys.stderr)
    if config.batch_size > samples:
        raise UserError(f"batch_size is {config.batch_size}, but the training set has {samples} images")
    planned = plan(config, samples // config.batch_size)
    return plan_table(planned), plan_as_json(planned), draw_plan(planned)


def _cycles(options: Options) -> tuple[str, dict[str, Any], Any]:
    """Triangular cycles as text, JSON values and a figure."""
    from fastcifar.analysis.cyclic import Cycles
    from fastcifar.analysis.rate_plots import draw_cycles
    from fastcifar.analysis.rate_tables import cycles_as_json

    if options.peak is not None and options.amplitude is not None:
        raise UserError("--peak and --amplitude exclude each other: peak = base + amplitude")
    amplitude = AMPLITUDE if options.amplitude is None else options.amplitude
    peak = options.base + amplitude if options.peak is None else options.peak
    same = {name: getattr(options, name) for name in ("kind", "base", "step_size", "cycles", "gamma")}
    cycles = Cycles(peak=peak, **same)
    text = f"{cycles.kind}: {cycles.total} iterations between {cycles.base:.4g} and {cycles.peak:.4g}"
    return text, cycles_as_json(cycles), draw_cycles(cycles)
