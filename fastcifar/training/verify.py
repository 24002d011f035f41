"""Trains a finished run again from its record and says whether it comes out the same, or what differs first."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fastcifar.config import Config
from fastcifar.errors import RunFailedError, UserError
from fastcifar.loader.base import Loader
from fastcifar.optim.build import build_optimizer
from fastcifar.recipes import load_config
from fastcifar.rng import Purpose, seeded
from fastcifar.runs.record import CONFIG_NAME, METRICS_NAME, environment, load_record, weights_sha256
from fastcifar.runs.resume import environment_changes
from fastcifar.runtime.device import select_runtime
from fastcifar.runtime.progress import progress
from fastcifar.runtime.threads import apply_threads, deterministic_operations
from fastcifar.training.context import RunContext
from fastcifar.training.fingerprint import fingerprints
from fastcifar.training.loop import training_steps
from fastcifar.training.step import TrainStep

LOSSES_READ = 50  # steps between two looks at the losses: each waits for the device


def verify(folder: Path, *, steps: int | None = None, data: Path | None = None) -> str:
    """Trains again the first `steps` of the run in `folder`, or all of it and to its weights; says what was the same.

    Raises RunFailedError with the first quantity that differs (data order, images, initial weights, the loss of a
    step, the last weights) and with what changed of versions, hardware and code; UserError for a run that cannot be
    compared: other data, no such device, no fingerprints in its record.
    """
    record = load_record(folder)
    try:
        config = _same_arithmetic(load_config(folder / CONFIG_NAME), record, data)
        expected, saved_digest = dict(record["fingerprints"]), record["dataset_sha256"]
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{folder} has no fingerprints to compare with: an earlier version trained it") from None
    context = RunContext(config, select_runtime(config))
    if context.manifest.content_sha256 != saved_digest:
        raise UserError(f"{config.data} is not what {folder} was trained on: name the num_correct data with --data")
    runtime, last = context.runtime, context.total if steps is None else min(steps, context.total)
    with (
        apply_threads(runtime),
        deterministic_operations(config.deterministic, runtime.device),
        seeded(config.seed, Purpose.DROPOUT),
        context.open("train") as loader,
    ):
        differs = _first_difference(context, loader, expected, _losses(folder), last, record["weights_sha256"])
    if differs is not None:
        changes = environment_changes(record, environment(runtime)) or ["nothing of versions, hardware or code"]
        raise RunFailedError(f"{folder} does not repeat: {differs}. Changed since: {'; '.join(changes)}")
    compared = f"{', '.join(expected)}, the loss of {last} steps"
    weights = f" and the weights {record['weights_sha256'][:12]}" if last == context.total else ""
    return f"the same: {compared}{weights}"


def _same_arithmetic(config: Config, record: dict[str, Any], data: Path | None) -> Config:
    """The run's configuration with what "auto" meant then."""
    return replace(
        config,
        amp=record["amp"],
        cpu_kernels=record.get("cpu_kernels", "torch"),
        device=record["device"].partition(":")[0],
        threads=record["hardware"]["threads"],
        data=config.data if data is None else data,
    )


def _losses(folder: Path) -> list[float]:
    try:
        lines = [json.loads(line) for line in (folder / METRICS_NAME).read_text(encoding="utf-8").splitlines()]
        return [float(line["loss"]) for line in lines if line["kind"] == "step"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read {folder / METRICS_NAME}: {error}") from None


def _first_difference(
    context: RunContext, loader: Loader, expected: dict[str, str], losses: list[float], last: int, weights: str
) -> str | None:
    for name, digest in fingerprints(context, loader).items():
        if expected.get(name) != digest:
            return f"{name} {digest[:12]}, was {str(expected.get(name))[:12]}"
    model = context.new_model(loader)
    optimizer = build_optimizer(model, context.config.optimizer, context.config.batch_size)
    step_once = TrainStep(model, optimizer, context.runtime, context.config.label_smoothing)
    unread: list[torch.Tensor] = []
    done = 0
    with progress(f"verifying {context.config.recipe} seed {context.config.seed}", last, "steps") as bar:
        for step in training_steps(context, step_once, loader):
            unread.append(step.loss)
            if len(unread) == LOSSES_READ or step.number + 1 == last:
                for loss in torch.stack(unread).tolist():
                    before = losses[done] if done < len(losses) else math.nan
                    if loss != before:
                        return f"the loss of step {done} is {loss!r}, was {before!r}"
                    done += 1
                unread.clear()
            bar.update(step.number + 1)
            if step.number + 1 == last:
                break
    if last < context.total:
        return None
    found = weights_sha256(model.state_dict())
    return None if found == weights else f"the weights are {found[:12]}, were {weights[:12]}, though no loss differs"
