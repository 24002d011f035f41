"""The public API: what `import fastcifar` offers. Every function is also a command; both call the same code."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import nn

from fastcifar.analysis import prediction
from fastcifar.analysis.evaluation import Evaluation, evaluate_run
from fastcifar.config import Config, ModelConfig
from fastcifar.data.raw_set import SPLITS
from fastcifar.data.sources.user_image import read_image
from fastcifar.errors import UserError, choose_one, shown
from fastcifar.loader.base import Loader
from fastcifar.models.given import given_model
from fastcifar.recipes import load_config
from fastcifar.runs import load
from fastcifar.runs.load import TrainedRun
from fastcifar.runs.record import find_run
from fastcifar.runs.resume import run_to_resume
from fastcifar.runtime.device import select_runtime
from fastcifar.training import trainer
from fastcifar.training.context import RunContext


def recipe(name: str | None = None, **changes: Any) -> Config:
    """The recipe `name`, by default the one for this machine, with the fields in `changes` replaced.

    Raises UserError for an unknown recipe and for a value that is not allowed; TypeError for an unknown field.
    """
    return replace(load_config(name=name), **changes)


def train(
    config: Config,
    *,
    model: nn.Module | Callable[[int], nn.Module] | ModelConfig | None = None,
    resume: str | Path | None = None,
) -> TrainedRun:
    """Trains `config` to the end and returns the finished run, with its trained network on the CPU.

    `model` takes the place of `config.model`: a module, which is copied and whose weights are the initial ones, or a
    function or class that is called with the number of classes. Only this process can load such a run again; register
    the network to use its runs everywhere. `resume`: the folder of an unfinished run, or "auto" for the one in
    `config.runs` with these settings, if there is one.

    Compiled kernels and imports are kept, so that the next run in this process starts at once. Raises UserError
    for what the caller can fix, RunFailedError for a run that cannot finish, InterruptedRunError after Ctrl-C or
    SIGTERM, once a checkpoint is written.
    """
    _require_config(config)
    if isinstance(model, ModelConfig):
        config = replace(config, model=model)
    elif model is not None:
        if not callable(model):
            raise UserError(f"model is {shown(model)}, but must be a torch.nn.Module, or a function that makes one")
        config = replace(config, model=given_model(model))
    unfinished = run_to_resume(None if resume is None else str(resume), config)
    folder, _ = trainer.train(config, unfinished, is_process=False)
    return load.load_run(folder)


def load_run(run: str | Path = "latest", runs: str | Path = "runs") -> TrainedRun:
    """A finished run: its folder, its name in the folder `runs`, or "latest".

    Raises UserError if there is none, or if it is incomplete, damaged or was changed.
    """
    return load.load_run(find_run(str(run), Path(runs)))


def evaluate(run: TrainedRun | str | Path, data: str | Path | None = None) -> Evaluation:
    """Evaluates a run on the whole test set, by single view and with test-time augmentation.

    `run`: a run, or what `load_run` takes.
    `data`: the prepared folder, by default the run's own. Raises UserError if its data is missing, damaged or has other
    classes.
    """
    return evaluate_run(_loaded(run), None if data is None else Path(data))


def predict(
    run: TrainedRun | str | Path, images: np.ndarray | Sequence[str | Path] | str | Path
) -> list[dict[str, float]]:
    """Probabilities by class name of each image: the mean over it and its mirror image.

    `images`: uint8 (n, 32, 32, 3), RGB, or image files of any size, whose central squares are scaled to 32x32. Raises
    UserError for an array of another shape or type and for a file that is no image.
    """
    if isinstance(images, np.ndarray):
        if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3):
            raise UserError(f"images must be uint8 (n, 32, 32, 3), got {images.dtype} {images.shape}")
        return prediction.predict(_loaded(run), list(images)) if len(images) else []
    files = [Path(images)] if isinstance(images, str | Path) else [Path(file) for file in images]
    return prediction.predict(_loaded(run), [read_image(file) for file in files]) if files else []


def open_loader(config: Config, split: Literal["train", "test"] = "train") -> Loader:
    """The batches that a run of `config` is trained on or evaluated by; close it, or use it in a `with` statement.

    `loader.epoch(n)` iterates over (images, labels): images (b, 3, s, s), augmented, normalised, channels_last, in the
    type of the run's arithmetic (`amp`) and on its device; labels int64 (b,). Raises UserError for missing data.
    """
    _require_config(config)
    if split not in SPLITS:
        raise UserError(f"split is {shown(split)}: {choose_one(split, SPLITS)}")
    return RunContext(config, select_runtime(config)).open(split)


def _require_config(config: object) -> None:
    if not isinstance(config, Config):
        raise UserError(f"config is {shown(config)}, but must be a Config: recipe('cpu90') makes one")


def _loaded(run: TrainedRun | str | Path) -> TrainedRun:
    return run if isinstance(run, TrainedRun) else load_run(run)
