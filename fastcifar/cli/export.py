"""`fastcifar export RUN`: a finished run's network in one file for others, with a model card."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from fastcifar.cli.parsing import parse

CARD_NAME = "MODEL_CARD.md"


@dataclass(frozen=True, kw_only=True)
class ExportArguments:
    """Write the network of a finished run as one file that takes images with values from 0 to 1, and its card."""

    run: tyro.conf.Positional[str] = "latest"
    """Folder of the run, its name inside --runs, or "latest"."""
    runs: Path = Path("runs")
    """Folder in which runs are looked up."""
    format: Literal["safetensors", "onnx"] = "safetensors"
    """model.safetensors for PyTorch, or model.onnx for ONNX Runtime (needs the extra `onnx`)."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Folder to write into; by default `export` in the run's own."""


def main(arguments: list[str]) -> None:
    """Parses, exports, prints. Raises UserError."""
    options = parse(ExportArguments, arguments, prog="fastcifar export")

    from fastcifar.runs.load import load_run
    from fastcifar.runs.record import find_run

    trained = load_run(find_run(options.run, options.runs))
    for path in export(trained, options.format, trained.folder / "export" if options.out is None else options.out):
        print(path)


def export(trained: Any, kind: Literal["safetensors", "onnx"], folder: Path) -> list[Path]:
    """Writes `model.<kind>` and the card into `folder`; returns their paths.

    Raises UserError where the folder cannot be written, or the packages for ONNX are missing.
    """
    from safetensors.torch import save_file

    from fastcifar.errors import UserError
    from fastcifar.export.classifier import classifier_of, metadata_of
    from fastcifar.export.model_card import model_card
    from fastcifar.export.onnx import check_packages, save_onnx
    from fastcifar.files import atomic_path, write_text

    if kind == "onnx":
        check_packages()
    classifier, metadata = classifier_of(trained), metadata_of(trained)
    target, card = folder / f"model.{kind}", folder / CARD_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            if kind == "onnx":
                save_onnx(classifier, metadata, temporary)
            else:
                state = {name: tensor.contiguous() for name, tensor in classifier.state_dict().items()}
                save_file(state, temporary, metadata)
        write_text(card, model_card(trained))
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}; choose another --out") from None
    return [target, card]
