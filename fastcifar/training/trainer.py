"""The loop: wires data, model, schedule, step and evaluation, and leaves a run folder behind."""

import math
import sys
from pathlib import Path
from typing import Any, TextIO

from torch import nn

from fastcifar.config import Config, evaluations_of
from fastcifar.config.toml import to_toml
from fastcifar.errors import InterruptedRunError, UserError
from fastcifar.files import write_json, write_text
from fastcifar.loader.base import Loader
from fastcifar.optim.build import build_optimizer
from fastcifar.rng import Purpose, seeded
from fastcifar.runs.checkpoint import Checkpoint, CheckpointSchedule, newest_checkpoint, write_checkpoint
from fastcifar.runs.record import (
    CONFIG_NAME,
    METRICS_NAME,
    RECORD_NAME,
    WEIGHTS_NAME,
    environment,
    make_run_folder,
    save_tensors,
    weights_sha256,
)
from fastcifar.runs.resume import check_data, check_same, note_changes, only_one, unfinished
from fastcifar.runtime.device import select_runtime
from fastcifar.runtime.progress import progress
from fastcifar.runtime.threads import apply_threads, deterministic_operations
from fastcifar.training.clock import Clock, process_seconds
from fastcifar.training.context import RunContext
from fastcifar.training.evaluation import accuracy, cross_entropy, predict_logits, predict_tta
from fastcifar.training.failures import explained, how_to_resume
from fastcifar.training.fingerprint import fingerprints
from fastcifar.training.flops import training_flops
from fastcifar.training.graph import GraphStep
from fastcifar.training.history import History
from fastcifar.training.interrupt import Interrupts
from fastcifar.training.loop import training_steps
from fastcifar.training.run_progress import RunProgress, fraction_of_pixels
from fastcifar.training.state import TrainingState
from fastcifar.training.step import TrainStep
from fastcifar.training.warm_up import compile_kernels

READS_PER_RUN = 50
"""How often the losses of a run on the CPU are read; on a GPU, where reading waits, once an epoch."""


def train(config: Config, resume: Path | None = None) -> tuple[Path, dict[str, Any]]:
    """Trains to the end; returns the run's folder and its record. With `resume`, goes on with the run in that folder.

    Raises UserError for data that is missing or does not fit `config`, and for a run that cannot be resumed with it;
    RunFailedError for a run that cannot be finished; InterruptedRunError after Ctrl-C or SIGTERM, when a checkpoint
    has been written. The folder then holds the metrics up to there, and no record.
    """
    runtime = select_runtime(config)
    context = RunContext(config, runtime)
    if resume is None:
        folder = make_run_folder(config)
        write_text(folder / CONFIG_NAME, to_toml(config))
    else:
        folder = unfinished(str(resume), config.runs)
        check_same(folder, config)
    with (
        only_one(folder),
        apply_threads(runtime),
        deterministic_operations(config.deterministic, runtime.device),
        seeded(config.seed, Purpose.DROPOUT),
        explained(config.batch_size, folder),
    ):
        return folder, _Run(context, folder, newest_checkpoint(folder)).execute()


class _Run:
    """One training run, from opened data to written record."""

    def __init__(self, context: RunContext, folder: Path, saved: Checkpoint | None) -> None:
        self.context, self.folder, self.saved = context, folder, saved
        self.config, self.runtime, self.manifest = context.config, context.runtime, context.manifest
        self.steps_per_epoch, self.total = context.steps_per_epoch, context.total
        self.environment = environment(self.runtime)  # now, as the source may change while the run goes on
        self.clock = Clock(self.runtime.synchronise)
        self.checkpoint_schedule = CheckpointSchedule(self.config.checkpoint_every)
        self.train_accuracy = math.nan  # of the last epoch
        self.resumed_at: list[int] = []

    def execute(self) -> dict[str, Any]:
        if self.saved is not None:
            check_data(self.folder, self.saved.facts["dataset_sha256"], self.manifest.content_sha256)
            note_changes(self.saved.facts, self.environment)
        compile_kernels(self.runtime, {size for _, size in self.config.resolution})
        self.clock.run.start()
        self.clock.train.start()
        with (
            self.context.open("train") as loader,
            self.context.open("test") as self.test,
            self._metrics() as self.file,
            Interrupts() as self.interrupts,
        ):
            self.model = self.context.new_model(loader)
            optimizer = build_optimizer(self.model, self.config.optimizer, self.config.batch_size)
            kind = GraphStep if self.config.graph and self.runtime.device.type == "cuda" else TrainStep
            self.step_once = kind(self.model, optimizer, self.runtime, self.config.label_smoothing)
            self.history = History(
                self.file, total=self.total, batch_size=self.config.batch_size, classes=self.context.classes
            )
            self.state = TrainingState(self.step_once, self.history)
            self._train(loader, 0 if self.saved is None else self._restore(self.saved))
            self.clock.train.stop()
            plain, more = self._evaluate(self.model)
            self.fingerprints = fingerprints(self.context, loader)
        if self.checkpoint_schedule.ever:
            self._write_checkpoint(self.total, keep=1)
        return self._save(self.model, plain, more)

    def _metrics(self) -> TextIO:
        """The file of metrics: a new one, or that of the run up to its checkpoint."""
        path = self.folder / METRICS_NAME
        if self.saved is None:
            return path.open("w", encoding="utf-8")
        file = path.open("a", encoding="utf-8")
        file.truncate(min(self.saved.facts["metrics_bytes"], path.stat().st_size))
        return file

    def _train(self, loader: Loader, first: int) -> None:
        config = self.config
        read_every = max(1, self.total // READS_PER_RUN) if self.runtime.device.type == "cpu" else self.total
        begin = fraction_of_pixels(first, self.total, config.resolution)
        with progress(f"{config.recipe} seed {config.seed}", self.total, "steps", first=first, begin=begin) as bar:
            shown = RunProgress(
                bar,
                config,
                total=self.total,
                steps_per_epoch=self.steps_per_epoch,
                dataset=self.manifest.dataset,
            )
            for number, lr_scale, loss, num_correct in training_steps(self.context, self.step_once, loader, first):
                done, lr = number + 1, config.optimizer.lr * lr_scale
                self.history.add({"step": number, "epoch": number / self.steps_per_epoch, "lr": lr}, loss, num_correct)
                if done % read_every == 0:
                    self.history.flush()
                shown.show(done, self.history)
                self._after_step(done, shown)

    def _after_step(self, done: int, shown: RunProgress) -> None:
        if done % self.steps_per_epoch == 0 or done == self.total:
            self._finish_epoch(math.ceil(done / self.steps_per_epoch), done, shown)
        received = self.interrupts.received
        if received is not None or (self.checkpoint_schedule.due(done) and done < self.total):
            self._write_checkpoint(done, self.config.checkpoint_keep)
        if received is not None:
            message = f"stopped after step {done} of {self.total}; go on with {how_to_resume(self.folder)}"
            raise InterruptedRunError(message, received)

    def _finish_epoch(self, epoch: int, done: int, shown: RunProgress) -> None:
        loss, self.train_accuracy = self.history.end_epoch()
        facts: dict[str, Any] = {"kind": "epoch", "epoch": epoch}
        every = self.config.evaluate_every
        if every and epoch % every == 0 and done < self.total:
            with self.clock.evaluation():
                answers = predict_logits(self.model, self.test.epoch(0), self.runtime)
                facts["test_accuracy"] = accuracy(*answers)
                facts["test_loss"] = cross_entropy(*answers, self.config.label_smoothing)
            shown.tested(facts["test_accuracy"])
            shown.show(done, self.history)
        self.history.write(facts | {"loss": loss, "train_accuracy": self.train_accuracy})

    def _write_checkpoint(self, done: int, keep: int) -> None:
        tensors, state = self.state.capture()
        if not self.file.closed:
            self.file.flush()
        facts = {
            "state": state,
            "metrics_bytes": (self.folder / METRICS_NAME).stat().st_size,
            "train_accuracy": None if math.isnan(self.train_accuracy) else self.train_accuracy,
            "train_s": self.clock.train.so_far(),
            "run_s": self.clock.run.so_far(),
            "resumed_at": self.resumed_at,
            "dataset_sha256": self.manifest.content_sha256,
            **self.environment,
        }
        try:
            write_checkpoint(self.folder, Checkpoint(done, tensors, facts), keep)
        except OSError as error:  # a full disk, say: the run may still reach its end
            print(f"no checkpoint after step {done}: {error}", file=sys.stderr, flush=True)

    def _restore(self, saved: Checkpoint) -> int:
        """Puts everything as it was when the checkpoint was written; returns the steps it had done."""
        facts = saved.facts
        if saved.step > self.total:
            raise UserError(f"{self.folder} has a checkpoint of step {saved.step}, but the run ends at {self.total}")
        self.state.restore(saved.tensors, facts["state"])
        self.train_accuracy = math.nan if facts["train_accuracy"] is None else facts["train_accuracy"]
        self.clock.train.seconds += facts["train_s"]
        self.clock.run.seconds += facts["run_s"]
        self.resumed_at = [*facts["resumed_at"], saved.step]
        return saved.step

    def _evaluate(self, model: nn.Module) -> tuple[float, float]:
        """Accuracy with one view and with more; the run clock stops once the one that counts is known."""
        _, kind = evaluations_of(self.config.evaluation)
        plain, labels = predict_logits(model, self.test.epoch(0), self.runtime)
        plain_accuracy = accuracy(plain, labels)
        if self.config.evaluation == "single_view":
            self.clock.run.stop()
        more = predict_tta(model, self.test.epoch(0), self.runtime, kind, plain)
        more_accuracy = accuracy(more, labels)
        if self.config.evaluation != "single_view":
            self.clock.run.stop()
        return plain_accuracy, more_accuracy

    def _save(self, model: nn.Module, plain: float, more: float) -> dict[str, Any]:
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        save_tensors(self.folder / WEIGHTS_NAME, state)
        manifest, config = self.manifest, self.config
        record = {
            "recipe": config.recipe,
            "seed": config.seed,
            "dataset": manifest.dataset,
            "epochs": config.epochs,
            "steps": self.total,
            "batch_size": config.batch_size,
            "flops": training_flops(self.context),
            "parameters": sum(p.numel() for p in model.parameters()),
            "device": str(self.runtime.device),
            "amp": str(self.runtime.dtype).removeprefix("torch."),
            "loader": self.context.loader_kind,
            "evaluation": config.evaluation,
            "test_accuracy": plain,
            "test_accuracy_tta": more,
            "test_samples": manifest.splits["test"].samples,
            "train_accuracy": self.train_accuracy,
            "resumed_at": self.resumed_at,
            "clock": {
                "train_s": round(self.clock.train.seconds, 4),
                "run_s": round(self.clock.run.seconds, 4),
                "process_s": None if self.resumed_at else process_seconds(),
            },
            "class_names": list(manifest.class_names),
            "mean_01": list(manifest.mean_01),
            "std_01": list(manifest.std_01),
            "dataset_sha256": manifest.content_sha256,
            "fingerprints": self.fingerprints,
            "weights_sha256": weights_sha256(state),
            **self.environment,
        }
        write_json(self.folder / RECORD_NAME, record)
        return record
