"""Trains a run: from prepared data to a run folder with weights, metrics and a record."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from fastcifar.config import Config
from fastcifar.config.registry import EVALUATIONS
from fastcifar.config.toml import check_round_trip, to_toml
from fastcifar.errors import InterruptedRunError, UserError
from fastcifar.evaluation import SINGLE_VIEW, tta_of
from fastcifar.evaluation.logits import Predict, accuracy, cross_entropy, evaluate_logits, predict_logits, predictor
from fastcifar.files import write_text
from fastcifar.loader.base import Loader
from fastcifar.rng import Purpose, seeded
from fastcifar.runs.checkpoint import Checkpoint, CheckpointSchedule, newest_checkpoint, write_checkpoint
from fastcifar.runs.record import CONFIG_NAME, METRICS_NAME, make_run_folder
from fastcifar.runs.resume import check_settings, environment_changes, lock_run, unfinished
from fastcifar.runtime.device import select_runtime
from fastcifar.runtime.threads import run_settings
from fastcifar.training.clock import Clock
from fastcifar.training.context import RunContext
from fastcifar.training.failures import resume_command, translate_failures
from fastcifar.training.fingerprint import fingerprints
from fastcifar.training.history import History
from fastcifar.training.interrupt import Interrupts
from fastcifar.training.loop import Steps, training_steps
from fastcifar.training.prepared import PreparedTraining
from fastcifar.training.results import write_results
from fastcifar.training.run_progress import RunProgress, run_progress
from fastcifar.training.state import TrainingState
from fastcifar.training.trial import try_components

READS_PER_RUN = 50
"""How often a run on a CPU reads its losses. On a GPU, where a read waits for the device, once an epoch."""


def train(config: Config, resume: Path | None = None, *, is_process: bool = True) -> tuple[Path, dict[str, Any]]:
    """Trains `config` to the end, or resumes the run in the folder `resume`; returns the run's folder and record.

    `is_process`: whether this is all that the process does, so that the process clock is the run's.
    Raises what `Trainer` and its `train` raise.
    """
    return Trainer(config).train(config.seed, resume, is_process=is_process)


class Trainer:
    """Trains runs of one configuration that differ in their seed. Kernels and CUDA graphs are prepared once for all.

    A run has the same bits as in a process of its own. Raises UserError for data that is missing or does not fit
    `config`.
    """

    def __init__(self, config: Config) -> None:
        self._context = RunContext(config, select_runtime(config))
        check_round_trip(config)
        try_components(self._context)
        self._prepared: PreparedTraining | None = None

    def train(self, seed: int, resume: Path | None = None, *, is_process: bool = False) -> tuple[Path, dict[str, Any]]:
        """Trains the run with this seed to the end, or resumes the one in `resume`; returns its folder and record.

        Raises UserError for a run that cannot be resumed; RunFailedError for a run that cannot finish;
        InterruptedRunError after Ctrl-C or SIGTERM, once a checkpoint is written. After either of the last two the
        folder holds the metrics so far and no record.
        """
        context = self._context.with_seed(seed)
        config, runtime = context.config, context.runtime
        if resume is None:
            folder = make_run_folder(config)
            write_text(folder / CONFIG_NAME, to_toml(config))
        else:
            folder = unfinished(str(resume), config.runs)
            check_settings(folder, config)
        with (
            lock_run(folder),
            translate_failures(config.batch_size, folder, runtime.device),
            run_settings(runtime, deterministic=config.deterministic),
        ):
            if self._prepared is None:
                self._prepared = PreparedTraining(self._context)
            with seeded(seed, Purpose.DROPOUT):
                return folder, _train(context, self._prepared, folder, is_process)


@dataclass(frozen=True, slots=True)
class _Run:
    """What the functions below share; everything that training changes is in `state`."""

    context: RunContext
    steps: Steps
    predict: Predict
    folder: Path
    environment: dict[str, Any]
    train_loader: Loader
    test_loader: Loader
    state: TrainingState
    checkpoints: CheckpointSchedule
    interrupts: Interrupts


def _train(context: RunContext, prepared: PreparedTraining, folder: Path, is_process: bool) -> dict[str, Any]:
    """Trains from the newest checkpoint, or from the start, to the written record."""
    config, runtime = context.config, context.runtime
    saved = newest_checkpoint(folder)
    environment_now = context.environment()  # before the training, during which the code may change
    if saved is not None:
        _check_checkpoint(context, folder, saved, environment_now)
    checkpoints = CheckpointSchedule(config.checkpoint_every)
    steps = prepared.begin(context)
    clock = Clock(runtime.synchronise, is_process=is_process and saved is None)
    clock.run.start()
    clock.train.start()
    with (
        context.open("train", prepared.storage) as train_loader,
        context.open("test") as test_loader,
        _open_metrics(folder, saved) as metrics,
        Interrupts() as interrupts,
    ):
        steps.start(train_loader)
        history = History(metrics, total=context.total, batch_size=config.batch_size, classes=context.classes)
        state = TrainingState(steps.train_step, history, clock)
        if saved is not None:
            state.restore(saved, config)
        predict = prepared.predict or predictor(steps.train_step.model, runtime)
        run = _Run(
            context, steps, predict, folder, environment_now, train_loader, test_loader, state, checkpoints, interrupts
        )
        _take_steps(run, 0 if saved is None else saved.step)
        clock.train.stop()
        accuracies = _evaluate(run)
        digests = fingerprints(context, train_loader)
        if checkpoints.enabled:
            _write_checkpoint(run, context.total, keep=1)
    measured = {**accuracies, "paths": prepared.paths, "fingerprints": digests, **environment_now}
    return write_results(context, folder, state, measured)


def _check_checkpoint(context: RunContext, folder: Path, saved: Checkpoint, environment_now: dict[str, Any]) -> None:
    """Raises UserError for a checkpoint of other data or another length; prints what changed in the environment."""
    before, now = saved.facts["dataset_sha256"], context.manifest.content_sha256
    if before != now:
        raise UserError(f"{folder} was trained on other data ({before[:12]}, now {now[:12]}): prepare that again")
    if saved.step > context.total:
        raise UserError(f"{folder} has a checkpoint of step {saved.step}, but the run ends at {context.total}")
    if changed := environment_changes(saved.facts, environment_now):
        print(f"the weights may differ from an uninterrupted run's: {'; '.join(changed)}", file=sys.stderr, flush=True)


def _open_metrics(folder: Path, saved: Checkpoint | None) -> TextIO:
    """The metrics file, empty or cut to what it held when the checkpoint was written."""
    path = folder / METRICS_NAME
    file = path.open("a", encoding="utf-8")
    file.truncate(0 if saved is None else min(saved.facts["metrics_bytes"], path.stat().st_size))
    return file


def _take_steps(run: _Run, first: int) -> None:
    """Trains from step `first` to the last, with metrics, evaluations, checkpoints and signals in between."""
    context, history = run.context, run.state.history
    read_every = max(1, context.total // READS_PER_RUN) if context.runtime.device.type == "cpu" else context.total
    with run_progress(context, first) as shown:
        for step, rates, loss, num_correct in training_steps(run.steps, run.train_loader, first):
            done, facts = step + 1, {"step": step, "epoch": step / context.steps_per_epoch, **rates._asdict()}
            history.add(facts, loss, num_correct)
            if done % read_every == 0:
                history.flush()
            shown.show(done, history)
            if done % context.steps_per_epoch == 0 or done == context.total:
                _end_epoch(run, done, shown)
            _checkpoint_or_stop(run, done)


def _end_epoch(run: _Run, done: int, shown: RunProgress) -> None:
    """Writes the means of an epoch. Evaluates too if that is due, but not after the last step: `_evaluate` does."""
    context, state, config = run.context, run.state, run.context.config
    epoch = math.ceil(done / context.steps_per_epoch)
    facts: dict[str, Any] = {"kind": "epoch", "epoch": epoch}
    if config.evaluate_every and epoch % config.evaluate_every == 0 and done < context.total:
        with state.clock.evaluation():
            predictions = predict_logits(run.predict, run.test_loader.epoch(0))
            facts["test_accuracy"] = accuracy(*predictions)
            facts["test_loss"] = cross_entropy(*predictions, config.label_smoothing)
        shown.show_test_accuracy(facts["test_accuracy"])
    state.history.end_epoch(facts)
    if done == context.total:
        state.history.flush()
    shown.show(done, state.history)


def _checkpoint_or_stop(run: _Run, done: int) -> None:
    """Writes a checkpoint if one is due. After a signal, writes one in any case and stops the run."""
    total, received = run.context.total, run.interrupts.received
    if received is not None or (run.checkpoints.due(done) and done < total):
        _write_checkpoint(run, done, run.context.config.checkpoint_keep)
    if received is not None:
        message = f"stopped after step {done} of {total}; resume with {resume_command(run.folder)}"
        raise InterruptedRunError(message, received)


def _write_checkpoint(run: _Run, done: int, keep: int) -> None:
    tensors, facts = run.state.capture()
    facts |= {"dataset_sha256": run.context.manifest.content_sha256, **run.environment}
    try:
        write_checkpoint(run.folder, Checkpoint(done, tensors, facts), keep)
    except OSError as error:  # such as a full disk: the run may still finish
        print(f"no checkpoint after step {done}: {error}", file=sys.stderr, flush=True)


def _evaluate(run: _Run) -> dict[str, float]:
    """Test accuracies of a single view and with TTA; the run clock stops when the primary metric is known."""
    evaluation, clock = run.context.config.evaluation, run.state.clock
    single, labels = predict_logits(run.predict, run.test_loader.epoch(0))
    accuracies: dict[str, float] = {}
    if is_single := EVALUATIONS.name_of(evaluation) == SINGLE_VIEW:  # else it is read later: reading waits for a GPU
        accuracies["test_accuracy"] = accuracy(single, labels)
        clock.run.stop()
    tta = evaluate_logits(tta_of(evaluation), run.predict, run.test_loader.epoch(0), single)
    accuracies["test_accuracy_tta"] = accuracy(tta, labels)
    if not is_single:
        clock.run.stop()
        accuracies["test_accuracy"] = accuracy(single, labels)
    return accuracies
