"""What a run does when something on the GPU is wrong: each fault is noticed, said, and gone around."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fastcifar.augment.transform_torch import TorchTransform
from fastcifar.config import Config
from fastcifar.config.toml import to_toml
from fastcifar.errors import RunFailedError, UserError
from fastcifar.runs.record import load_record
from fastcifar.training import graph, prepared
from fastcifar.training.graph_steps import GraphSteps
from fastcifar.training.trainer import train


class WrongImages(TorchTransform):
    """A kernel that compiles, runs, and computes one wrong value."""

    title = "wrong kernel"

    def into(self, out: torch.Tensor, *arguments: Any, **named: Any) -> None:
        super().into(out, *arguments, **named)
        out.view(-1)[5] += 1


def test_a_wrong_kernel_is_replaced_by_tensor_operations(
    short: Config, simulated_gpu: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    _, expected = train(short)
    capsys.readouterr()
    simulated_gpu.transform = WrongImages
    _, record = train(short)
    assert record["paths"] == {"augmentation": "tensor operations", "step": "graph"}
    assert record["weights_sha256"] == expected["weights_sha256"]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("self-check")]
    assert WrongImages.title in line
    assert "other images" in line
    with pytest.raises(RunFailedError, match=WrongImages.title):
        train(replace(short, strict=True))


def test_a_run_by_the_cuda_kernel_and_one_whose_kernel_fails(
    short: Config, simulated_gpu: Any, command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From the command line to the printed accuracy."""
    path = tmp_path / "config.toml"
    path.write_text(to_toml(replace(short, runs=tmp_path / "runs")))
    driver = simulated_gpu.use_the_cuda_kernel(monkeypatch)
    right = command("train", "--config", path)
    monkeypatch.setattr(driver, "cuLaunchKernel", lambda *_: (700,))
    monkeypatch.setattr(driver, "cuGetErrorName", lambda code: (0, b"CUDA_ERROR_ILLEGAL_ADDRESS"), raising=False)
    monkeypatch.setattr(driver, "cuGetErrorString", lambda code: (0, b"an illegal memory access"), raising=False)
    wrong = command("train", "--config", path)
    assert (right.code, wrong.code) == (0, 0)
    assert "self-check" not in right.err
    (line,) = [line for line in wrong.err.splitlines() if line.startswith("self-check")]
    assert "CUDA kernel" in line
    assert "CUDA_ERROR_ILLEGAL_ADDRESS" in line
    first, second = (load_record(folder) for folder in sorted((tmp_path / "runs").iterdir()))
    assert first["paths"] == {"augmentation": "CUDA kernel", "step": "graph"}
    assert second["paths"] == {"augmentation": "tensor operations", "step": "graph"}
    assert first["weights_sha256"] == second["weights_sha256"]
    assert re.findall(r"\d+\.\d\d%", right.out) == re.findall(r"\d+\.\d\d%", wrong.out) != []


def test_a_failed_capture_is_replaced_by_ordinary_steps(
    short: Config, simulated_gpu: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    _, expected = train(replace(short, graph=False))
    assert expected["paths"]["step"] == "eager"
    simulated_gpu.fault = RuntimeError("operation not permitted when stream is capturing")
    capsys.readouterr()
    _, record = train(short)
    assert record["paths"] == {"augmentation": "tensor operations", "step": "eager"}
    assert record["weights_sha256"] == expected["weights_sha256"]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("self-check")]
    assert "not permitted" in line
    with pytest.raises(RunFailedError, match="not permitted"):
        train(replace(short, strict=True))


class Forgetful(GraphSteps):
    """Replays that do not update the network."""

    def _work(self, size: int) -> None:
        kept = [parameter.detach().clone() for parameter in self.train_step.model.parameters()]
        super()._work(size)
        with torch.no_grad():
            for parameter, value in zip(self.train_step.model.parameters(), kept, strict=True):
                parameter.copy_(value)


class Stale(GraphSteps):
    """Replays that always see the first batch."""

    def _work(self, size: int) -> None:
        self._step.zero_()
        super()._work(size)


class NotANumber(GraphSteps):
    """Replays that read memory which was never written."""

    def _work(self, size: int) -> None:
        super()._work(size)
        self._losses.fill_(math.nan)


class NoStatistics(GraphSteps):
    """Replays that miss the running statistics of batch norm."""

    def _work(self, size: int) -> None:
        kept = [buffer.clone() for buffer in self.train_step.model.buffers()]
        super()._work(size)
        for buffer, value in zip(self.train_step.model.buffers(), kept, strict=True):
            buffer.copy_(value)


class SwappedRates(GraphSteps):
    """Replays in which two groups have each other's learning rate."""

    def _work(self, size: int) -> None:
        groups = self.train_step.optimizer.param_groups
        groups[1]["lr"], groups[2]["lr"] = groups[2]["lr"], groups[1]["lr"]
        super()._work(size)
        groups[1]["lr"], groups[2]["lr"] = groups[2]["lr"], groups[1]["lr"]


class WrongLater(GraphSteps):
    """Replays that are wrong at one image size only."""

    def _work(self, size: int) -> None:
        super()._work(size)
        if size == 20:
            self._losses.add_(1)


@pytest.mark.parametrize(
    ("kind", "loader"),
    [
        (Forgetful, "stream"),
        *((kind, "resident") for kind in (Forgetful, Stale, NotANumber, NoStatistics, SwappedRates, WrongLater)),
    ],
)
def test_the_check_sees_wrong_replays(
    kind: Any, loader: Any, short: Config, simulated_gpu: Any, prepared_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared, "GraphSteps", kind)
    ready = prepared_for(replace(short, loader=loader))
    (finding,) = ready.findings
    assert "ordinary steps" in finding
    assert ready.paths["step"] == "eager"


def test_the_check_sees_a_wrong_evaluation(
    short: Config, simulated_gpu: Any, prepared_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Old(graph.GraphPredict):
        """Replays the logits of the network as it was."""

        def _record(self, images: torch.Tensor) -> Any:
            _, inputs, logits = super()._record(images)
            return (lambda: None), inputs, logits

    monkeypatch.setattr(prepared, "GraphPredict", Old)
    ready = prepared_for(short)
    (finding,) = ready.findings
    assert "test images" in finding
    assert ready.paths["step"] == "eager"
    assert ready.predict is None


def test_a_network_that_replaces_its_tensors_is_refused(
    short: Config, simulated_gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replaces(self: Any, images: Any) -> None:
        self.head.weight = nn.Parameter(self.head.weight.clone())

    monkeypatch.setattr("fastcifar.models.speednet.SpeedNet.init_from_data", replaces)
    with pytest.raises(UserError, match=r"head\.weight"):
        train(short)
    assert train(replace(short, graph=False))[1]["paths"]["step"] == "eager"
