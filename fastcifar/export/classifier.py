"""A trained network with its normalisation, images in 0..1 to logits, saved in one safetensors file.

Tensors of the file: `mean` and `std`, float32 (3, 1, 1), and `network.<name>`. Its metadata are strings; the values of
`JSON_KEYS` are JSON.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from fastcifar.config import ModelConfig
from fastcifar.config.registry import MODELS, imported_modules
from fastcifar.errors import UserError
from fastcifar.models.build import outline
from fastcifar.runs.load import TrainedRun
from fastcifar.runs.record import weights_sha256

FORMAT = "fastcifar classifier 1"
JSON_KEYS = ("classes", "model", "mean_01", "std_01")
FACTS = ("recipe", "seed", "dataset", "dataset_sha256", "weights_sha256", "code_revision")
ACCURACIES = ("test_accuracy", "test_accuracy_tta")


class Classifier(nn.Module):
    """Normalises images, float32 (n, 3, 32, 32), RGB, 0 to 1, and returns logits (n, classes)."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, class_names: list[str], mean_01: list[float], std_01: list[float]) -> None:
        super().__init__()
        self.network, self.class_names = network, class_names
        self.register_buffer("mean", torch.tensor(mean_01).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std_01).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes)."""
        return self.network((images - self.mean) / self.std)


def classifier_of(trained: TrainedRun) -> Classifier:
    """The network of a finished run and its normalisation, in evaluation mode."""
    record = trained.record
    return Classifier(trained.model, trained.class_names, record["mean_01"], record["std_01"]).eval()


def metadata_of(trained: TrainedRun) -> dict[str, str]:
    """Metadata of the exported file: all that is needed to rebuild the network, and where it came from."""
    config, record = trained.config.model, trained.record
    values = (
        trained.class_names,
        {"kind": MODELS.name_of(config), **asdict(config)},
        record["mean_01"],
        record["std_01"],
    )
    return {
        "format": FORMAT,
        "input": "float32 (n, 3, 32, 32), RGB, 0 to 1",
        "output": "logits float32 (n, classes)",
        **{key: json.dumps(value) for key, value in zip(JSON_KEYS, values, strict=True)},
        "imports": json.dumps(imported_modules(trained.config)),
        **{key: str(record.get(key)) for key in (*FACTS, *ACCURACIES)},
    }


def load_classifier(path: Path) -> Classifier:
    """Loads a file written by `fastcifar export --format safetensors`; the classifier is in evaluation mode.

    A network of your own must be registered before: import its module. Raises UserError for any other file, for a
    network that is not registered, and if the weights do not match their checksum.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read the weights {path}: {error}") from None
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path} is not an exported classifier; write one with `fastcifar export`")
    try:
        classes, model, mean, std = (json.loads(metadata[key]) for key in JSON_KEYS)
        classifier = Classifier(outline(_model_config(model), len(classes)), list(classes), mean, std)
        classifier.load_state_dict(state, assign=True)
    except UserError as error:  # such as a network that is not registered
        raise UserError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"{path} is damaged, its metadata do not fit its weights: {error}") from None
    if weights_sha256(classifier.network.state_dict()) != metadata.get("weights_sha256"):
        raise UserError(f"{path} does not hold the weights it was written with: their SHA-256 differs; export it again")
    return classifier.eval()


def _model_config(values: dict[str, Any]) -> ModelConfig:
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items() if key != "kind"}
    return MODELS[values["kind"]](**fields)
