"""A finished run, loaded to be used: its record, its configuration, its network with the trained weights."""

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
from fastcifar.data.manifest import DATASETS, is_class_names, is_mean, is_std
from fastcifar.errors import UserError, shown
from fastcifar.models.build import build_model
from fastcifar.recipes import load_config
from fastcifar.runs.record import CONFIG_NAME, RECORD_NAME, WEIGHTS_NAME, load_record, weights_sha256

CHECKS: dict[str, Callable[[Any], bool]] = {
    "class_names": is_class_names,
    "mean_01": is_mean,
    "std_01": is_std,
    "dataset": lambda value: value in DATASETS,
}
"""What others rely on in a record."""


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """What a run leaves for later use; the weights were checked against the record."""

    folder: Path
    record: dict[str, Any]
    config: Config
    model: nn.Module

    @property
    def class_names(self) -> list[str]:
        """Names by label."""
        return self.record["class_names"]

    def transform(self, dtype: torch.dtype = torch.float32) -> Transform:
        """The normalisation the network was trained with, and nothing else."""
        return Transform(NO_AUGMENTATION, tuple(self.record["mean_01"]), tuple(self.record["std_01"]), dtype=dtype)


def load_facts(folder: Path) -> dict[str, Any]:
    """The record of a finished run, as `load_record`, after a look at what a trained run takes from it; raises UserError."""
    record = load_record(folder)
    missing = [key for key in CHECKS if key not in record]
    if missing:
        raise UserError(f"{folder / RECORD_NAME} lacks {', '.join(missing)}; train again")
    for key, holds in CHECKS.items():
        if not holds(record[key]):
            raise UserError(
                f"{folder / RECORD_NAME} has {key} = {shown(record[key])}, which no run writes; train again"
            )
    return record


def load_run(folder: Path) -> TrainedRun:
    """Loads a finished run; raises UserError for one that is incomplete, damaged or changed since."""
    record = load_facts(folder)
    config = load_config(folder / CONFIG_NAME)
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
