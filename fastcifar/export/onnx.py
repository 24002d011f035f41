"""A classifier as an ONNX file; the packages it needs are an extra of this one."""

from importlib.util import find_spec
from pathlib import Path

import torch

from fastcifar.errors import UserError
from fastcifar.export.classifier import Classifier

NEEDED = ("onnx", "onnxscript")


def save_onnx(classifier: Classifier, metadata: dict[str, str], target: Path) -> None:
    """Writes `target`: input `images` (n, 3, 32, 32) of any n, output `logits`."""
    program = torch.onnx.export(
        classifier,
        (torch.zeros(2, 3, 32, 32),),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("n")},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None  # it is None for the older exporter only
    program.model.metadata_props.update(metadata)
    program.save(target, external_data=False)


def check_packages() -> None:
    """UserError where a package is missing that ONNX needs."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(
            f"ONNX needs {' and '.join(missing)}, not installed here; run `pip install -e '.[onnx]'` in the checkout"
        )
