"""`fastcifar verify RUN`: trains a finished run again and says whether it comes out the same, bit for bit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fastcifar.cli.parsing import parse


@dataclass(frozen=True, kw_only=True)
class VerifyArguments:
    """Train a finished run again, from its record, and compare: data order, images, losses, weights."""

    run: tyro.conf.Positional[str] = "latest"
    """Folder of the run, its name inside --runs, or "latest"."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Compare the first N steps only; by default all, and the weights behind them."""
    runs: Path = Path("runs")
    """Folder in which runs are looked up."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Prepared data; by default the run's own."""


def main(arguments: list[str]) -> None:
    """Parses, verifies, prints. Raises UserError, and RunFailedError for a run that does not repeat."""
    options = parse(VerifyArguments, arguments, prog="fastcifar verify")

    from fastcifar.errors import UserError
    from fastcifar.runs.record import find_run
    from fastcifar.training.verify import verify

    if options.steps is not None and options.steps < 1:
        raise UserError(f"--steps is {options.steps}, but must be at least 1")
    print(verify(find_run(options.run, options.runs), steps=options.steps, data=options.data))
