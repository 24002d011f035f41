"""`fastcifar report RUN...`: one HTML page on finished runs."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fastcifar.cli.parsing import parse
from fastcifar.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Write one self-contained HTML page on one or more finished runs.

    The first run is shown in detail: result and clocks, training curves, confusion matrix, calibration, galleries,
    Grad-CAM, layers and configuration. Several runs are compared as well; runs with the same settings are summarised
    by their mean and its 95% interval.
    """

    run: tyro.conf.Positional[tuple[str, ...]] = ("latest",)
    """Folders of the runs, their names inside --runs, or "latest"."""
    runs: Path = Path("runs")
    """Folder in which runs are looked up."""
    data: Annotated[
        Path | None,
        tyro.conf.arg(metavar="PATH", help_behavior_hint="(default: the data of the run; no images if it is missing)"),
    ] = None
    """Folder of the prepared data for the first run."""
    out: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="FILE",
            help_behavior_hint="(default: in the folder of the first run, report.html or report-N-runs-DIGEST.html)",
        ),
    ] = None
    """HTML file to write. The name for several runs contains their number and a digest of which they are."""


def main(arguments: list[str]) -> None:
    """Raises UserError."""
    options = parse(Options, arguments, prog="fastcifar report")
    if options.out is not None and options.out.suffix != ".html":
        raise UserError(f"--out is {options.out}, but must end in .html")

    from fastcifar.analysis.report.page import build_report
    from fastcifar.cli.output_files import written
    from fastcifar.files import write_text
    from fastcifar.runs.record import find_run

    folders = [find_run(run, options.runs) for run in options.run or ("latest",)]
    target = folders[0] / _name(folders) if options.out is None else options.out
    try:
        target.parent.mkdir(parents=True, exist_ok=True)  # before the evaluation, so that a wrong path fails early
        page = build_report(folders, options.data)
        done = written(target, lambda path: write_text(path, page))
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}; choose another --out") from None
    print(f"wrote {done}, {len(page.encode()) / 1e6:.1f} MB")


def _name(folders: list[Path]) -> str:
    """The default name of the report in the folder of the first run: different runs, different names."""
    first, *others = (folder.resolve() for folder in folders)
    if not others:
        return "report.html"
    paths = sorted(os.path.relpath(folder, first) for folder in others)
    return f"report-{len(folders)}-runs-{hashlib.sha256(os.fsencode(os.pathsep.join(paths))).hexdigest()[:8]}.html"
