"""Trains a finished run again from its record, and reports whether it repeats bit for bit or what differs first."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastcifar.config import Config
from fastcifar.errors import RunFailedError, UserError
from fastcifar.loader.base import Loader
from fastcifar.recipes import load_config
from fastcifar.rng import Purpose, seeded
from fastcifar.runs.record import CONFIG_NAME, METRICS_NAME, load_record, weights_sha256
from fastcifar.runs.resume import environment_changes
from fastcifar.runtime.device import select_runtime
from fastcifar.runtime.progress import progress
from fastcifar.runtime.threads import run_settings
from fastcifar.training.context import RunContext
from fastcifar.training.fingerprint import fingerprints
from fastcifar.training.loop import Steps, training_steps
from fastcifar.training.prepared import PreparedTraining
from fastcifar.training.results import final_weights


def verify(folder: Path, *, steps: int | None = None, data: Path | None = None) -> str:
    """Trains the first `steps` of the run in `folder` again, or all of it; returns what was compared and is equal.

    The final weights are compared if all steps are. Raises RunFailedError with the first difference (sample order,
    images, initial weights, the loss of a step, final weights) and with what changed in versions, hardware and code;
    UserError for a run that cannot be compared: other data, no such device, no fingerprints in its record.
    """
    record = load_record(folder)
    try:
        config = _same_arithmetic(load_config(folder / CONFIG_NAME), record, data)
        expected, weights, data_digest = {**record["fingerprints"]}, record["weights_sha256"], record["dataset_sha256"]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder} cannot be verified: its record is incomplete ({error}); train again") from None
    context = RunContext(config, select_runtime(config))
    if context.manifest.content_sha256 != data_digest:
        raise UserError(f"{folder} was not trained on the data in {config.data}; name its data with --data")
    runtime, last = context.runtime, context.total if steps is None else min(steps, context.total)
    with run_settings(runtime, deterministic=config.deterministic):
        prepared = PreparedTraining(context)
        with seeded(config.seed, Purpose.DROPOUT), context.open("train", prepared.storage) as loader:
            losses = _losses(folder, last)
            difference = _start_difference(context, loader, expected)
            difference = difference or _training_difference(prepared.begin(context), loader, losses, weights)
    if difference is not None:
        changes = environment_changes(record, context.environment()) or ["nothing in versions, hardware or code"]
        raise RunFailedError(f"{folder} does not repeat: {difference}. Changed since: {'; '.join(changes)}")
    compared = f"the same: {', '.join(expected)}, the loss of {last} steps"
    return compared + (f" and the weights {weights[:12]}" if last == context.total else "")


def _same_arithmetic(config: Config, record: dict[str, Any], data: Path | None) -> Config:
    """The run's configuration, with "auto" replaced by what it stood for then."""
    return replace(
        config,
        amp=record["amp"],
        cpu_kernels=record["cpu_kernels"],
        device=record["device"].partition(":")[0],
        threads=record["hardware"]["threads"],
        data=config.data if data is None else data,
    )


def _losses(folder: Path, steps: int) -> list[float]:
    """The losses of the first `steps` steps; raises UserError if the metrics are damaged or have fewer."""
    path = folder / METRICS_NAME
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        losses = [float(line["loss"]) for line in lines if line["kind"] == "step"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if len(losses) < steps:
        raise UserError(f"{path} has the losses of {len(losses)} steps, but the run has {steps}; train again")
    return losses[:steps]


def _start_difference(context: RunContext, loader: Loader, expected: dict[str, str]) -> str | None:
    for name, digest in fingerprints(context, loader).items():
        if expected.get(name) != digest:
            return f"{name} {digest[:12]}, was {str(expected.get(name))[:12]}"
    return None


def _training_difference(steps: Steps, loader: Loader, losses: list[float], weights: str) -> str | None:
    """Trains a step for each of `losses` and compares; after all steps of the run, also the digest of the weights."""
    context, config, model = steps.context, steps.context.config, steps.train_step.model
    steps.start(loader)
    with progress(f"verifying {config.recipe} seed {config.seed}", len(losses), "steps") as bar:
        for before, step in zip(losses, training_steps(steps, loader), strict=False):
            loss = step.loss.item()
            if loss != before:
                return f"the loss of step {step.number} is {loss!r}, was {before!r}"
            bar.update(step.number + 1)
    found = weights_sha256(final_weights(model))
    if len(losses) < context.total or found == weights:
        return None
    return f"the weights are {found[:12]}, were {weights[:12]}, though no loss differs"
