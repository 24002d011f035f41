"""`fastcifar predict IMAGE...`: classifies image files with a finished run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fastcifar.cli.parsing import parse
from fastcifar.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Classify image files and print the most probable classes.

    Of an image of any size, the central square is scaled to 32x32 pixels. The prediction is the mean over the image
    and its mirror image.
    """

    images: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="IMAGE...", help_behavior_hint="")]
    """Image files: PNG, JPEG, WebP, ..."""
    run: str = "latest"
    """Folder of the run, its name inside --runs, or "latest"."""
    runs: Path = Path("runs")
    """Folder in which runs are looked up."""
    top: int = 3
    """How many classes to print for each image."""


def main(arguments: list[str]) -> None:
    """Raises UserError."""
    options = parse(Options, arguments, prog="fastcifar predict")
    if not options.images:
        raise UserError("no image given; name at least one file")
    if options.top < 1:
        raise UserError(f"--top is {options.top}, but must be at least 1")

    from fastcifar.analysis.prediction import predict
    from fastcifar.data.sources.user_image import read_image
    from fastcifar.runs.load import load_run
    from fastcifar.runs.record import find_run

    images = [read_image(path) for path in options.images]
    trained = load_run(find_run(options.run, options.runs))
    if trained.record["dataset"] == "synthetic":
        print("note: this run was trained on the synthetic set, not on CIFAR-10")
    for path, probabilities in zip(options.images, predict(trained, images), strict=True):
        best = sorted(probabilities.items(), key=lambda item: -item[1])[: options.top]
        print(f"{path}: " + ", ".join(f"{name} {probability:.1%}" for name, probability in best))
