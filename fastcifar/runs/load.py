"""Loads a finished run: its record, its configuration and its network with the trained weights."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from fastcifar.augment.transform import Transform
from fastcifar.config import NO_AUGMENTATION, Config
from fastcifar.config.registry import imported_modules
from fastcifar.data.manifest import DATASETS, is_class_names, is_mean, is_std
from fastcifar.errors import UserError, shown
from fastcifar.evaluation import SINGLE_VIEW
from fastcifar.models.build import build_model
from fastcifar.recipes import load_config
from fastcifar.runs.record import CONFIG_NAME, RECORD_NAME, WEIGHTS_NAME, load_record, weights_sha256


def is_fraction(value: Any) -> bool:
    """Whether a value of a record is a number in 0..1."""
    return isinstance(value, int | float) and 0 <= value <= 1


CHECKS: dict[str, Callable[[Any], bool]] = {
    "class_names": is_class_names,
    "mean_01": is_mean,
    "std_01": is_std,
    "dataset": lambda value: value in DATASETS,
    "evaluation": lambda value: isinstance(value, str),
    "test_accuracy": is_fraction,
    "test_accuracy_tta": is_fraction,
}
"""Fields of a record that other modules use, and the check of each."""


@dataclass(frozen=True, slots=True, repr=False)
class TrainedRun:
    """A finished run, with weights that match the digest in its record and a model in evaluation mode."""

    folder: Path
    record: dict[str, Any]
    config: Config
    model: nn.Module

    def __repr__(self) -> str:
        return f"TrainedRun({str(self.folder)!r}, accuracy {self.accuracy:.2%} on {self.record['dataset']})"

    @property
    def class_names(self) -> list[str]:
        """The class names, by label."""
        return self.record["class_names"]

    @property
    def accuracy(self) -> float:
        """The primary metric, in 0..1."""
        is_single = self.record["evaluation"] == SINGLE_VIEW
        return self.record["test_accuracy" if is_single else "test_accuracy_tta"]

    def transform(self, dtype: torch.dtype = torch.float32) -> Transform:
        """The normalisation of the training, without augmentation."""
        return Transform(NO_AUGMENTATION, tuple(self.record["mean_01"]), tuple(self.record["std_01"]), dtype=dtype)


def load_facts(folder: Path) -> dict[str, Any]:
    """The record of a finished run with the fields of CHECKS checked; raises UserError."""
    record = load_record(folder)
    for key, is_valid in CHECKS.items():
        if not is_valid(record.get(key)):
            raise UserError(f"{folder / RECORD_NAME} lacks a valid {key}, it has {shown(record.get(key))}; train again")
    return record


def load_run(folder: Path) -> TrainedRun:
    """Loads a finished run; raises UserError if it is incomplete, damaged or was changed."""
    record = load_facts(folder)
    config = load_config(folder / CONFIG_NAME)
    _note_changed_modules(folder, record, config)
    path = folder / WEIGHTS_NAME
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read the weights {path}: {error}") from None
    if weights_sha256(state) != record.get("weights_sha256"):
        raise UserError(f"{path} does not hold the weights of its record: their SHA-256 differs; train again")
    model = build_model(config.model, len(record["class_names"]), config.seed)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit the network of {folder / CONFIG_NAME}: {error}") from None
    return TrainedRun(folder, record, config, model.eval())


def _note_changed_modules(folder: Path, record: dict[str, Any], config: Config) -> None:
    before = record.get("imports")
    for name, digest in imported_modules(config).items():
        if not isinstance(before, dict) or before.get(name) != digest:
            print(f"note: the module {name} is not the one that {folder} was trained with", file=sys.stderr, flush=True)
