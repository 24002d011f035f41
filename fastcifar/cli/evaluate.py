"""`fastcifar evaluate RUN`: evaluates a finished run on the whole test set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fastcifar.cli.parsing import parse
from fastcifar.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Evaluate a finished run on the whole test set.

    Prints the accuracy per class and overall, the confusion matrix and the calibration. Writes evaluation.json,
    confusion.png and reliability.png.
    """

    run: tyro.conf.Positional[str] = "latest"
    """Folder of the run, its name inside --runs, or "latest"."""
    runs: Path = Path("runs")
    """Folder in which runs are looked up."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(default: the data of the run)")] = (
        None
    )
    """Folder of the prepared data."""
    out: Annotated[
        Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(default: the folder of the run)")
    ] = None
    """Folder to write to."""
    galleries: bool = False
    """Also plot the most confident mistakes and correct predictions, with Grad-CAM; writes galleries.json as well."""
    layer: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="NAME", help_behavior_hint="(default: the last block with a feature map of at least 8x8)"
        ),
    ] = None
    """Layer for Grad-CAM."""


def main(arguments: list[str]) -> None:
    """Raises UserError."""
    options = parse(Options, arguments, prog="fastcifar evaluate")
    if options.layer is not None and not options.galleries:
        raise UserError(f"--layer {options.layer} needs --galleries: it is the layer for Grad-CAM")

    from fastcifar.analysis.evaluation import evaluate_run, summarise
    from fastcifar.analysis.evaluation_files import write_evaluation
    from fastcifar.analysis.evaluation_tables import tables
    from fastcifar.analysis.gallery_files import write_galleries
    from fastcifar.data.prepared import read_split
    from fastcifar.runs.load import load_run
    from fastcifar.runs.record import find_run

    trained = load_run(find_run(options.run, options.runs))
    if options.layer is not None:
        from fastcifar.analysis.grad_cam import find_layer

        find_layer(trained.model, options.layer)  # before the evaluation, so that a wrong name fails early
    evaluation = evaluate_run(trained, options.data)
    summary = summarise(evaluation)
    print(tables(summary), flush=True)  # before the files: a full disk must not hide the result
    folder = trained.folder if options.out is None else options.out
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = write_evaluation(evaluation, summary, folder)
        if options.galleries:
            images, _ = read_split(trained.config.data if options.data is None else options.data, "test")
            paths += write_galleries(trained, evaluation, images, folder, options.layer)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another --out") from None
    print(f"\nwrote {', '.join(path.name for path in paths)} to {folder}")
