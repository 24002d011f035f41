"""`fastcifar evaluate RUN`: a finished run on the whole test set: accuracy, confusions, calibration."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from fastcifar.cli.parsing import parse
from fastcifar.errors import UserError


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """Measure a finished run on the whole test set.

    Prints accuracy overall and per class, confusions and calibration; writes them as evaluation.json, confusion.png
    and reliability.png beside the run.
    """

    run: tyro.conf.Positional[str] = "latest"
    """Folder of the run, its name inside --runs, or "latest"."""
    runs: Path = Path("runs")
    """Folder in which runs are looked up."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Prepared data; by default the run's own."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Folder for what is written; by default the run's own."""
    galleries: bool = False
    """Also the most confidently wrong and right images and Grad-CAM, as PNG and galleries.json."""
    layer: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Layer of Grad-CAM; by default the last block with a map of 8x8 or finer."""


def main(arguments: list[str]) -> None:
    """Parses, evaluates, prints, writes. Raises UserError."""
    options = parse(EvaluateArguments, arguments, prog="fastcifar evaluate")
    if options.layer is not None and not options.galleries:
        raise UserError(f"--layer {options.layer} is that of Grad-CAM; add --galleries")

    from fastcifar.analysis.evaluation import evaluate_run, summarise
    from fastcifar.analysis.evaluation_tables import tables
    from fastcifar.runs.load import load_run
    from fastcifar.runs.record import find_run

    trained = load_run(find_run(options.run, options.runs))
    if options.layer is not None:
        from fastcifar.analysis.grad_cam import find_layer

        find_layer(trained.model, options.layer)  # a typing mistake is told now, not after the evaluation
    evaluation = evaluate_run(trained, options.data)
    summary = summarise(evaluation)
    print(tables(summary), flush=True)  # first: a result is not lost to a full disk
    folder = trained.folder if options.out is None else options.out
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = write(evaluation, summary, folder)
        if options.galleries:
            paths += write_images(trained, evaluation, folder, options.data, options.layer)
    except OSError as error:
        raise UserError(f"cannot write into {folder}: {error.strerror}; choose another --out") from None
    print(f"\nwritten to {folder}: {', '.join(path.name for path in paths)}")


def write(evaluation: Any, summary: dict[str, Any], folder: Path) -> list[Path]:
    """evaluation.json and two PNGs of the view that counts; returns their paths."""
    from fastcifar.analysis.evaluation import EVALUATION_NAME, title_of
    from fastcifar.analysis.evaluation_figures import (
        CONFUSION_NAME,
        RELIABILITY_NAME,
        confusion_figure,
        reliability_figure,
    )
    from fastcifar.analysis.figure_files import save_figure
    from fastcifar.analysis.metrics import confusion_matrix, reliability
    from fastcifar.files import write_json

    logits, labels = evaluation.primary_logits, evaluation.labels
    confusions = confusion_figure(
        confusion_matrix(logits, labels), evaluation.class_names, title_of(evaluation, "Confusion matrix")
    )
    calibration = reliability_figure(reliability(logits, labels), title_of(evaluation, "Calibration"))
    write_json(folder / EVALUATION_NAME, summary)
    return [
        folder / EVALUATION_NAME,
        save_figure(confusions, folder / CONFUSION_NAME),
        save_figure(calibration, folder / RELIABILITY_NAME),
    ]


def write_images(trained: Any, evaluation: Any, folder: Path, data: Path | None, layer: str | None) -> list[Path]:
    """The galleries and Grad-CAM of the test set; returns their paths."""
    from fastcifar.analysis.gallery_files import write_galleries
    from fastcifar.data.prepared import read_split

    images, _ = read_split(trained.config.data if data is None else data, "test")
    return write_galleries(trained, evaluation, images, folder, layer)
