"""Losses and accuracies of a run: kept on the device during the steps, and read a few times an epoch."""

import json
import math
from collections import deque
from typing import Any, NamedTuple, TextIO

import torch
from torch import Tensor

from fastcifar.errors import RunFailedError

CHANCE_WINDOW = 5000
"""Images over which the accuracy is compared with chance; with fewer, runs that learn would be stopped."""
EARLIEST_CHECK = 50_000
"""Images before the check for chance: a warm-up to a high rate may start worse than chance and recover."""


class _Read(NamedTuple):
    """Steps whose results are on their way to the host."""

    facts: list[dict[str, Any]]  # of each step
    losses: Tensor
    num_correct: Tensor
    epoch: dict[str, Any] | None  # facts of the epoch that ends with these steps
    copied: torch.cuda.Event | None  # of the copies; None if there is nothing to wait for


class History:
    """Writes losses and accuracies of the steps as JSON lines; stops a run that diverges or does not learn."""

    def __init__(self, file: TextIO, *, total: int, batch_size: int, classes: int) -> None:
        self.file, self.total, self.batch_size, self.classes = file, total, batch_size, classes
        self.loss: float | None = None  # mean over the steps that were read last
        self.accuracy: float | None = None  # as well, 0..1
        self.train_accuracy: float | None = None  # of the last epoch that was read, 0..1
        self._pending: list[tuple[dict[str, Any], Tensor, Tensor]] = []
        self._reads: deque[_Read] = deque()
        self._epoch: list[tuple[float, float]] = []
        self._recent: list[float] = []
        self._window = max(1, CHANCE_WINDOW // batch_size)
        self._judged = False

    def add(self, facts: dict[str, Any], loss: Tensor, num_correct: Tensor) -> None:
        """Keeps a step's 0-d tensors without waiting for the device; `facts` go into the same line."""
        self._pending.append((facts, loss, num_correct))
        self._finish(wait=False)

    def flush(self) -> None:
        """Reads and writes all steps; RunFailedError if a loss is not finite or the accuracy is at chance."""
        self._start(None)
        self._finish(wait=True)

    def end_epoch(self, facts: dict[str, Any]) -> None:
        """Reads and writes the steps of the epoch, then a line of `facts` and the means over its steps.

        A GPU goes on meanwhile: the lines are written when its results have arrived, at the latest by `flush`.
        """
        self._start(facts)
        self._finish(wait=False)

    def _start(self, epoch: dict[str, Any] | None) -> None:
        if self._pending:
            facts, losses, num_correct = (list(column) for column in zip(*self._pending, strict=True))
            device = losses[0].device
            # torch makes such copies in pinned memory, so they do not wait; elsewhere nothing says when they are there
            late = device.type == "cuda"
            copies = [torch.stack(values).to("cpu", non_blocking=late) for values in (losses, num_correct)]
            self._reads.append(_Read(facts, copies[0], copies[1], epoch, _copied(device)))
            self._pending.clear()
        elif epoch is not None:  # its steps were read before
            self._reads.append(_Read([], torch.empty(0), torch.empty(0), epoch, None))

    def _finish(self, *, wait: bool) -> None:
        while self._reads:
            copied = self._reads[0].copied
            if copied is not None and not wait and not copied.query():
                return
            if copied is not None:
                copied.synchronize()
            read = self._reads.popleft()
            if read.facts:
                self._write_steps(read)
            if read.epoch is not None:
                self._write_epoch(read.epoch)
            self.file.flush()  # for readers that follow the file

    def _write_steps(self, read: _Read) -> None:
        losses: list[float] = read.losses.tolist()
        accuracies = [count / self.batch_size for count in read.num_correct.tolist()]
        for facts, loss, accuracy in zip(read.facts, losses, accuracies, strict=True):
            json_loss = loss if math.isfinite(loss) else None
            self.write({"kind": "step", **facts, "loss": json_loss, "train_accuracy": accuracy})
        for facts, loss in zip(read.facts, losses, strict=True):
            if not math.isfinite(loss):
                raise RunFailedError(
                    f"the loss is {loss} at step {facts['step']} of {self.total}, learning rate {_rates(facts)}; "
                    "lower the learning rate, or try --amp float32"
                )
        self.loss, self.accuracy = sum(losses) / len(losses), sum(accuracies) / len(accuracies)
        self._epoch += zip(losses, accuracies, strict=True)
        self._recent = (self._recent + accuracies)[-self._window :]
        self._check_above_chance(read.facts[-1]["step"])

    def _write_epoch(self, facts: dict[str, Any]) -> None:
        losses, accuracies = zip(*self._epoch, strict=True)
        self.train_accuracy = sum(accuracies) / len(accuracies)
        self.write({**facts, "loss": sum(losses) / len(losses), "train_accuracy": self.train_accuracy})
        self._epoch = []

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
        """The state except `train_accuracy`, as JSON; flushes first."""
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


def _copied(device: torch.device) -> torch.cuda.Event | None:
    """An event of the work that is queued now on the device; None if the device does not work on its own."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event


def _rates(facts: dict[str, Any]) -> str:
    return ", ".join(f"{lr:.4g}" for lr in facts["lr"].values())
