"""The stages of `python -m bench epochs`: what each one changes, and a training epoch with its parts timed."""

import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.isolated_runner import cores
from bench.peers import Feed, Setting, build_feed
from fastcifar.data.prepared import load_manifest
from fastcifar.models.build import build_model
from fastcifar.models.resnet import ResNetConfig
from fastcifar.models.speednet import SpeedNetConfig
from fastcifar.optim.rates import prepare_for_capture
from fastcifar.optim.sgd import SgdConfig
from fastcifar.runtime.device import Runtime
from fastcifar.runtime.threads import apply_threads
from fastcifar.training.graph import new_capture
from fastcifar.training.step import TrainStep


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A configuration of loader, AMP and memory format."""

    feed: str
    amp: bool = True
    channels_last: bool = True
    amp_images: bool = False  # the loader delivers images in the 16-bit type of AMP
    workers: int = 0
    graph: bool = False  # the step as a CUDA graph


def stages(device: str) -> dict[str, Stage]:
    """The stages in order; each changes what its name says, relative to the previous one."""
    torchvision = functools.partial(Stage, feed="torchvision-pil", workers=cores())
    found = {
        "plain PyTorch": torchvision(amp=False, channels_last=False),
        "+ AMP": torchvision(channels_last=False),
        "+ channels_last": torchvision(),
        "+ FFCV's operations": Stage(feed="ffcv"),
        "+ fused kernel (stream)": Stage(feed="stream", amp_images=True),
        "+ resident": Stage(feed="resident", amp_images=True),
    }
    if device == "cuda":
        found["+ CUDA graph"] = Stage(feed="resident", amp_images=True, graph=True)
    return found


class RecordedStep:
    """A training step as a CUDA graph, on batches that are copied to where it reads them."""

    def __init__(self, step: TrainStep, task: "Task") -> None:
        device, dtype = step.runtime.device, step.runtime.dtype
        prepare_for_capture(step.optimizer, device)
        images = torch.randn((task.batch_size, 3, 32, 32), device=device).to(dtype)
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.labels = torch.zeros(task.batch_size, dtype=torch.int64, device=device)
        self.results = torch.zeros(2, device=device)
        capture = new_capture(step.runtime)
        assert capture is not None, "a CPU has no CUDA graphs"

        def work() -> None:
            self.results.copy_(torch.stack([part.float() for part in step(self.images, self.labels)]))

        self.replay = capture(work)

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """As a `TrainStep`."""
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.replay()
        loss, num_correct = self.results.clone()
        return loss, num_correct


@dataclass(frozen=True, kw_only=True)
class Task:
    """What all stages train. Picklable."""

    data: Path
    network: str
    width: int
    batch_size: int
    device: str
    threads: int
    dtype: torch.dtype  # of AMP, from the stage "+ AMP" on
    train_images: int
    test_images: int


class TimedTraining:
    """A stage as a candidate; a repetition is an epoch."""

    def __init__(self, stage: Stage, task: Task) -> None:
        self.stage, self.task = stage, task
        dtype = task.dtype if stage.amp else torch.float32
        self.runtime = Runtime(torch.device(task.device), dtype, task.threads)
        self.layout = torch.channels_last if stage.channels_last else torch.contiguous_format
        self.epochs = 0
        with apply_threads(self.runtime):
            self.train, self.test = self._feed("train"), self._feed("test")
            self.model = _network(task).to(device=task.device, memory_format=self.layout)  # type: ignore[call-overload]
            optimizer = SgdConfig(lr=0.01).build(self.model, task.batch_size)
            self.step = TrainStep(self.model, optimizer, self.runtime, 0.0)
            if stage.graph:
                self.step = RecordedStep(self.step, task)

    def _feed(self, split: Literal["train", "test"]) -> Feed:
        stage, task, train = self.stage, self.task, split == "train"
        setting = Setting(
            data=task.data,
            split=split,
            augment=train,
            batch_size=task.batch_size,
            device=task.device,
            threads=task.threads,
            workers=stage.workers,
            dtype=self.runtime.dtype if stage.amp_images else torch.float32,
            num_images=task.train_images if train else task.test_images,
        )
        return build_feed(stage.feed, setting)

    def measure(self) -> dict[str, float]:
        """Seconds of the three parts of an epoch; loss and correct predictions, to see that the network learns."""
        with apply_threads(self.runtime):
            self.model.train()
            data_s, step_s, loss = self._train()
            start = time.perf_counter()
            num_correct = self._evaluate()
            evaluation_s = time.perf_counter() - start
        self.epochs += 1
        parts = {"data_s": data_s, "step_s": step_s, "evaluation_s": evaluation_s}
        return {**parts, "loss": loss, "num_correct": num_correct}

    def _train(self) -> tuple[float, float, float]:
        data_s = step_s = 0.0
        loss: Tensor | None = None
        self.runtime.synchronise()
        mark = time.perf_counter()
        for images, labels in _timed_end(self.train.epoch(self.epochs)):
            now = time.perf_counter()
            data_s += now - mark
            if images is None:
                break
            loss, _ = self.step(images.contiguous(memory_format=self.layout), labels)
            mark = time.perf_counter()
            step_s += mark - now
        start = time.perf_counter()
        self.runtime.synchronise()
        assert loss is not None, "the epoch had no batch"
        return data_s, step_s + time.perf_counter() - start, loss.item()

    @torch.inference_mode()
    def _evaluate(self) -> int:
        self.model.eval()
        num_correct = torch.zeros((), dtype=torch.int64, device=self.task.device)
        for images, labels in self.test.epoch(0):
            with self.runtime.autocast:
                logits = self.model(images.contiguous(memory_format=self.layout))
            num_correct += (logits.argmax(1) == labels).sum()
        return int(num_correct.item())

    def facts(self) -> dict[str, Any]:
        """Images per epoch."""
        return {"images": self.train.num_images, "test_images": self.test.num_images}


def _timed_end(batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Any, Any]]:
    """The batches, then (None, None), so that waiting for the end of the epoch counts as waiting for data."""
    yield from batches
    yield None, None


def _network(task: Task) -> nn.Module:
    width = task.width
    config = ResNetConfig(width=width, logit_scale=0.125) if task.network == "resnet" else None
    classes = len(load_manifest(task.data).class_names)
    return build_model(config or SpeedNetConfig(widths=(width, 4 * width, 4 * width)), classes, 0)
