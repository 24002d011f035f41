"""`fastcifar report RUN...`: finished runs as one HTML page, to read, to print, to hand in."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fastcifar.cli.parsing import parse
from fastcifar.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ReportArguments:
    """Write one self-contained HTML page on a finished run, or on several.

    The first run is shown in detail: result and clocks, curves, confusions, calibration, galleries, Grad-CAM, layers,
    configuration. Of several runs there is a comparison as well, with means and 95% intervals where settings agree.
    """

    run: tyro.conf.Positional[tuple[str, ...]] = ("latest",)
    """Folders of runs, their names inside --runs, or "latest"."""
    runs: Path = Path("runs")
    """Folder in which runs are looked up."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Prepared data for the first run; by default its own, and no images if that is gone."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The page, ending in .html; by default report.html in the first run's folder."""


def main(arguments: list[str]) -> None:
    """Parses, builds the page, writes it. Raises UserError."""
    options = parse(ReportArguments, arguments, prog="fastcifar report")
    if options.out is not None and options.out.suffix != ".html":
        raise UserError(f"--out is {options.out}, but must name a file that ends in .html")

    from fastcifar.analysis.report.page import REPORT_NAME, build_report
    from fastcifar.files import write_text
    from fastcifar.runs.record import find_run

    folders = [find_run(run, options.runs) for run in options.run or ("latest",)]
    target = folders[0] / REPORT_NAME if options.out is None else options.out
    try:
        target.parent.mkdir(parents=True, exist_ok=True)  # first: a mistake is told now, not after the evaluation
        page = build_report(folders, options.data)
        write_text(target, page)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}; choose another --out") from None
    print(f"{target} ({len(page.encode()) / 1e6:.1f} MB)")
