"""The loop: wires data, model, schedule, step and evaluation, and leaves a run folder behind."""

import math
from itertools import islice
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from fastcifar.augment.draws import Purpose
from fastcifar.config import Config
from fastcifar.config_file import to_toml
from fastcifar.console import progress
from fastcifar.device import place, using
from fastcifar.engine.clock import Clock, process_seconds
from fastcifar.engine.evaluate import accuracy, predict_logits
from fastcifar.engine.history import History
from fastcifar.engine.optimizer import build_optimizer
from fastcifar.engine.progress import RunProgress
from fastcifar.engine.record import (
    CONFIG_NAME,
    METRICS_NAME,
    RECORD_NAME,
    WEIGHTS_NAME,
    environment,
    make_run_folder,
    weights_sha256,
)
from fastcifar.engine.schedule import one_cycle
from fastcifar.engine.setup import Setup
from fastcifar.engine.step import TrainStep
from fastcifar.engine.warm_up import compile_kernels
from fastcifar.files import atomic_path, write_json, write_text
from fastcifar.loader.protocol import Loader
from fastcifar.seeding import seeded

READS_PER_RUN = 50
"""How often the losses of a run on the CPU are read; on a GPU, where reading waits, once an epoch."""


def train(config: Config) -> tuple[Path, dict[str, Any]]:
    """Trains to the end; returns the run's folder and its record.

    Raises UserError for data that is missing or does not fit `config`, RunFailedError for a run that cannot be
    finished. The folder then holds the metrics up to there, and no record.
    """
    placement = place(config)
    setup = Setup(config, placement)
    folder = make_run_folder(config)
    write_text(folder / CONFIG_NAME, to_toml(config))
    with using(placement), seeded(config.seed, Purpose.DROPOUT):
        return folder, _Run(setup, folder).execute()


class _Run:
    """One training run, from opened data to written record."""

    def __init__(self, setup: Setup, folder: Path) -> None:
        self.setup, self.folder = setup, folder
        self.config, self.placement, self.manifest = setup.config, setup.placement, setup.manifest
        self.steps_per_epoch, self.total = setup.steps_per_epoch, setup.total
        self.environment = environment(self.placement)  # now, as the source may change while the run goes on
        self.clock = Clock(self.placement.synchronise)
        self.train_accuracy = math.nan  # of the last epoch

    def execute(self) -> dict[str, Any]:
        compile_kernels(self.placement, {size for _, size in self.config.resolution})
        self.clock.run.start()
        self.clock.train.start()
        with self.setup.open("train") as loader, (self.folder / METRICS_NAME).open("w", encoding="utf-8") as file:
            self.test = self.setup.open("test")
            with self.test:
                model = self.setup.new_model(loader)
                history = History(file, total=self.total, batch_size=self.config.batch_size, classes=self.setup.classes)
                self._train(model, loader, history)
                self.clock.train.stop()
                plain, mirrored = self._evaluate(model)
        return self._save(model, plain, mirrored)

    def _train(self, model: nn.Module, loader: Loader, history: History) -> None:
        config = self.config
        step_once = TrainStep(model, build_optimizer(model, config.optimizer), self.placement, config.label_smoothing)
        read_every = max(1, self.total // READS_PER_RUN) if self.placement.device.type == "cpu" else self.total
        with progress(f"{config.recipe} seed {config.seed}", self.total, "steps") as bar:
            shown = RunProgress(
                bar,
                config,
                total=self.total,
                steps_per_epoch=self.steps_per_epoch,
                dataset=self.manifest.dataset,
            )
            for epoch in range(math.ceil(self.total / self.steps_per_epoch)):
                model.train()
                first = epoch * self.steps_per_epoch
                for step, (images, labels) in enumerate(islice(loader.epoch(epoch), self.total - first), first):
                    share = one_cycle(step, self.total, config.schedule.peak_epoch / config.epochs, config.schedule)
                    self.setup.before_step(model, step)
                    loss, right = step_once(images, labels, share)
                    history.add(
                        {"step": step, "epoch": step / self.steps_per_epoch, "lr": self._lr(share)}, loss, right
                    )
                    if (step + 1) % read_every == 0:
                        history.flush()
                    shown.show(step + 1, history)
                self._finish_epoch(model, epoch + 1, history, shown)

    def _lr(self, share: float) -> float:
        return self.config.optimizer.lr * share

    def _finish_epoch(self, model: nn.Module, epoch: int, history: History, shown: RunProgress) -> None:
        loss, self.train_accuracy = history.end_epoch()
        facts: dict[str, Any] = {"kind": "epoch", "epoch": epoch}
        done = min(epoch * self.steps_per_epoch, self.total)
        every = self.config.evaluate_every
        if every and epoch % every == 0 and done < self.total:
            with self.clock.evaluation():
                facts["test_accuracy"] = accuracy(*predict_logits(model, self.test.epoch(0), self.placement))
            shown.tested(facts["test_accuracy"])
            shown.show(done, history)
        history.write(facts | {"loss": loss, "train_accuracy": self.train_accuracy})

    def _evaluate(self, model: nn.Module) -> tuple[float, float]:
        """Accuracy with one view and with two; the run clock stops once the one that counts is known."""
        plain, labels = predict_logits(model, self.test.epoch(0), self.placement)
        plain_accuracy = accuracy(plain, labels)
        if self.config.evaluation == "plain":
            self.clock.run.stop()
        mirror, _ = predict_logits(model, self.test.epoch(0), self.placement, mirror=True)
        mirrored_accuracy = accuracy(plain + mirror, labels)
        if self.config.evaluation == "mirrored":
            self.clock.run.stop()
        return plain_accuracy, mirrored_accuracy

    def _save(self, model: nn.Module, plain: float, mirrored: float) -> dict[str, Any]:
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        with atomic_path(self.folder / WEIGHTS_NAME) as temporary:
            save_file(state, temporary)
        manifest, config = self.manifest, self.config
        record = {
            "recipe": config.recipe,
            "seed": config.seed,
            "dataset": manifest.dataset,
            "epochs": config.epochs,
            "steps": self.total,
            "batch_size": config.batch_size,
            "parameters": sum(p.numel() for p in model.parameters()),
            "device": str(self.placement.device),
            "amp": str(self.placement.dtype).removeprefix("torch."),
            "loader": self.setup.loader_kind,
            "evaluation": config.evaluation,
            "test_accuracy": plain,
            "test_accuracy_tta": mirrored,
            "test_samples": manifest.splits["test"].samples,
            "train_accuracy": self.train_accuracy,
            "clock": {
                "train_s": round(self.clock.train.seconds, 4),
                "run_s": round(self.clock.run.seconds, 4),
                "process_s": process_seconds(),
            },
            "class_names": list(manifest.class_names),
            "mean_01": list(manifest.mean_01),
            "std_01": list(manifest.std_01),
            "dataset_sha256": manifest.content_sha256,
            "weights_sha256": weights_sha256(state),
            **self.environment,
        }
        write_json(self.folder / RECORD_NAME, record)
        return record
