"""`fastcifar export RUN`: exports the network of a finished run, with a model card."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fastcifar.cli.parsing import parse


@dataclass(frozen=True, kw_only=True)
class Options:
    """Export the network of a finished run as one file, with a model card.

    The exported network includes the normalisation: its input are images (n, 3, 32, 32) with values from 0 to 1.
    """

    run: tyro.conf.Positional[str] = "latest"
    """Folder of the run, its name inside --runs, or "latest"."""
    runs: Path = Path("runs")
    """Folder in which runs are looked up."""
    format: Literal["safetensors", "onnx"] = "safetensors"
    """safetensors for PyTorch, onnx for ONNX Runtime (needs the extra `onnx`)."""
    out: Annotated[
        Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(default: export/ in the folder of the run)")
    ] = None
    """Folder to write to."""


def main(arguments: list[str]) -> None:
    """Raises UserError."""
    options = parse(Options, arguments, prog="fastcifar export")

    from fastcifar.export.files import export
    from fastcifar.runs.load import load_run
    from fastcifar.runs.record import find_run

    trained = load_run(find_run(options.run, options.runs))
    for path in export(trained, options.format, trained.folder / "export" if options.out is None else options.out):
        print(f"wrote {path}")
