"""Losses and accuracies of a run: kept on the device during the steps, and read a few times an epoch."""

import json
import math
from typing import Any, TextIO

import torch
from torch import Tensor

from fastcifar.errors import RunFailedError

CHANCE_WINDOW = 5000
"""Images over which the accuracy is compared with chance; with fewer, runs that learn would be stopped."""
EARLIEST_CHECK = 50_000
"""Images before the check for chance: a warm-up to a high rate may start worse than chance and recover."""


class History:
    """Writes losses and accuracies of the steps as JSON lines; stops a run that diverges or does not learn."""

    def __init__(self, file: TextIO, *, total: int, batch_size: int, classes: int) -> None:
        self.file, self.total, self.batch_size, self.classes = file, total, batch_size, classes
        self.loss: float | None = None  # mean over the steps of the last flush
        self.accuracy: float | None = None  # as well, 0..1
        self._pending: list[tuple[dict[str, Any], Tensor, Tensor]] = []
        self._epoch: list[tuple[float, float]] = []
        self._recent: list[float] = []
        self._window = max(1, CHANCE_WINDOW // batch_size)
        self._judged = False

    def add(self, facts: dict[str, Any], loss: Tensor, num_correct: Tensor) -> None:
        """Keeps a step's 0-d tensors without waiting for the device; `facts` go into the same line."""
        self._pending.append((facts, loss, num_correct))

    def flush(self) -> None:
        """Reads and writes the pending steps; RunFailedError if a loss is not finite or the accuracy is at chance."""
        if not self._pending:
            return
        losses = torch.stack([loss for _, loss, _ in self._pending]).tolist()
        num_correct = torch.stack([num_correct for _, _, num_correct in self._pending]).tolist()
        accuracies = [count / self.batch_size for count in num_correct]
        for (facts, _, _), loss, accuracy in zip(self._pending, losses, accuracies, strict=True):
            json_loss = loss if math.isfinite(loss) else None
            self.write({"kind": "step", **facts, "loss": json_loss, "train_accuracy": accuracy})
        for (facts, _, _), loss in zip(self._pending, losses, strict=True):
            if not math.isfinite(loss):
                raise RunFailedError(
                    f"the loss is {loss} at step {facts['step']} of {self.total}, learning rate {_rates(facts)}; "
                    "lower the learning rate, or try --amp float32"
                )
        self.loss, self.accuracy = sum(losses) / len(losses), sum(accuracies) / len(accuracies)
        self._epoch += zip(losses, accuracies, strict=True)
        self._recent = (self._recent + accuracies)[-self._window :]
        self._check_above_chance(self._pending[-1][0]["step"])
        self._pending.clear()
        self.file.flush()  # for readers that follow the file

    def end_epoch(self) -> tuple[float, float]:
        """Flushes; returns the mean loss and accuracy over the steps since the last call."""
        self.flush()
        losses, accuracies = zip(*self._epoch, strict=True)
        self._epoch = []
        return sum(losses) / len(losses), sum(accuracies) / len(accuracies)

    def write(self, facts: dict[str, Any]) -> None:
        """Writes one line of metrics."""
        self.file.write(json.dumps(facts, allow_nan=False) + "\n")

    def _check_above_chance(self, step: int) -> None:
        early = step + 1 < self.total / 3 or (step + 1) * self.batch_size < EARLIEST_CHECK
        if self._judged or early or len(self._recent) < self._window:
            return
        self._judged = True
        chance, images = 1 / self.classes, len(self._recent) * self.batch_size
        accuracy = sum(self._recent) / len(self._recent)
        # four standard deviations: one guessing run in 30,000 passes, and a run that learns is far above
        if accuracy < chance + 4 * math.sqrt(chance * (1 - chance) / images):
            raise RunFailedError(
                f"after {step + 1} of {self.total} steps the training accuracy is {accuracy:.1%}, no better than "
                f"guessing among {self.classes} classes; change the learning rate, or check the data"
            )

    def state(self) -> dict[str, Any]:
        """The state, as JSON; flushes first."""
        self.flush()
        return {
            "loss": self.loss,
            "accuracy": self.accuracy,
            "epoch": [list(pair) for pair in self._epoch],
            "recent": list(self._recent),
            "judged": self._judged,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Sets the state to what `state` returned."""
        self.loss, self.accuracy = state["loss"], state["accuracy"]
        self._epoch = [(loss, accuracy) for loss, accuracy in state["epoch"]]
        self._recent, self._judged = list(state["recent"]), bool(state["judged"])


def _rates(facts: dict[str, Any]) -> str:
    return ", ".join(f"{lr:.4g}" for lr in facts["lr"].values())
