"""`fastcifar verify RUN`: retrains a finished run and compares the results bit for bit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fastcifar.cli.parsing import parse
from fastcifar.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Retrain a finished run and compare it bit for bit.

    Compares the order of the data, the augmented images, the initial weights, the loss of every step and the final
    weights with the record. Exits with 1 and names the first difference if there is one.
    """

    run: tyro.conf.Positional[str] = "latest"
    """Folder of the run, its name inside --runs, or "latest"."""
    steps: Annotated[
        int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: all, and the final weights)")
    ] = None
    """Compare the first N steps only."""
    runs: Path = Path("runs")
    """Folder in which runs are looked up."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(default: the data of the run)")] = (
        None
    )
    """Folder of the prepared data."""


def main(arguments: list[str]) -> None:
    """Raises UserError, and RunFailedError for a run that is not reproduced."""
    options = parse(Options, arguments, prog="fastcifar verify")
    if options.steps is not None and options.steps < 1:
        raise UserError(f"--steps is {options.steps}, but must be at least 1")

    from fastcifar.runs.record import find_run
    from fastcifar.training.verify import verify

    print(verify(find_run(options.run, options.runs), steps=options.steps, data=options.data))
