"""Exports a classifier as an ONNX file; needs the extra `onnx`."""

from importlib.util import find_spec
from pathlib import Path

import torch

from fastcifar.errors import UserError
from fastcifar.export.classifier import Classifier

NEEDED = ("onnx", "onnxscript")


def save_onnx(classifier: Classifier, metadata: dict[str, str], target: Path) -> None:
    """Writes `target`, with input `images` (n, 3, 32, 32) for any n and output `logits` (n, classes)."""
    program = torch.onnx.export(
        classifier,
        (torch.zeros(2, 3, 32, 32),),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("n")},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None  # only the old exporter returns None
    program.model.metadata_props.update(metadata)
    program.save(target, external_data=False)


def check_packages() -> None:
    """Raises UserError if a package that ONNX export needs is missing."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(
            f"ONNX needs {' and '.join(missing)}, not installed here; run `pip install -e '.[onnx]'` in the checkout"
        )
