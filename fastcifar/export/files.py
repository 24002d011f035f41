"""Writes the network of a run and its model card into a folder."""

from pathlib import Path
from typing import Literal

from safetensors.torch import save_file

from fastcifar.errors import UserError
from fastcifar.export.classifier import classifier_of, metadata_of
from fastcifar.export.model_card import model_card
from fastcifar.export.onnx import check_packages, save_onnx
from fastcifar.files import atomic_path, write_text
from fastcifar.runs.load import TrainedRun

CARD_NAME = "MODEL_CARD.md"


def export(trained: TrainedRun, kind: Literal["safetensors", "onnx"], folder: Path) -> list[Path]:
    """Writes `model.<kind>` and the model card into `folder`; returns their paths.

    Raises UserError if the folder cannot be written to or the packages for ONNX are missing.
    """
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
