"""Recorded steps against ordinary ones, on a simulated GPU everywhere and on a real one where there is one."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fastcifar.augment.transform_torch import TorchTransform
from fastcifar.config import AugmentConfig, Config
from fastcifar.config.toml import to_toml
from fastcifar.errors import RunFailedError, UserError
from fastcifar.evaluation.selective_tta import SelectiveTta
from fastcifar.models.resnet import ResNetConfig
from fastcifar.models.speednet import SpeedNetConfig
from fastcifar.optim.adam import AdamConfig
from fastcifar.optim.muon import MuonConfig
from fastcifar.optim.rates import prepare_for_capture
from fastcifar.optim.sgd import SgdConfig
from fastcifar.runs.record import load_record, weights_sha256
from fastcifar.runtime.device import Runtime, select_runtime
from fastcifar.runtime.threads import run_settings
from fastcifar.training import graph, prepared
from fastcifar.training.context import RunContext
from fastcifar.training.graph_steps import GraphSteps
from fastcifar.training.loop import EagerSteps, training_steps
from fastcifar.training.prepared import PreparedTraining
from fastcifar.training.step import TrainStep
from fastcifar.training.trainer import Trainer, train

SPEEDNET = (SpeedNetConfig(widths=(16, 16), activation="gelu", stem_epochs=1), MuonConfig())
RESNET = (ResNetConfig(width=2), SgdConfig(lr=0.02, nesterov=True, weight_decay=1e-3))
ADAM = (ResNetConfig(width=2), AdamConfig(lr=0.001))


@pytest.fixture
def short(tiny: Config, gpu: torch.device, tmp_path: Path) -> Config:
    """Two epochs and a half of 12 steps, images of 16 and 20 pixels, a stem that freezes after the first epoch."""
    model, optimizer = SPEEDNET
    return replace(
        tiny,
        epochs=2.5,
        resolution=((0.6, 16), (1.0, 20)),
        model=model,
        optimizer=optimizer,
        augment=AugmentConfig(pad=2, flip="alternating", cutout=8),
        evaluation=SelectiveTta(),
        device="auto" if gpu.type == "cpu" else str(gpu),
        runs=tmp_path,
    )


def prepared_for(config: Config) -> PreparedTraining:
    context = RunContext(config, select_runtime(config))
    with run_settings(context.runtime, deterministic=False):
        return PreparedTraining(context)


def losses_of(config: Config, *, graph: bool) -> tuple[list[float], list[int], nn.Module]:
    """Losses, numbers correct and the final network."""
    context = RunContext(replace(config, graph=graph), select_runtime(config))
    with run_settings(context.runtime, deterministic=False):
        ready = PreparedTraining(context)
        assert ready.findings == []
        assert ready.paths["step"] == ("graph" if graph else "eager")
        with context.open("train", ready.storage) as loader:
            steps = ready.begin(context)
            steps.start(loader)
            if not graph and context.runtime.device.type == "cpu":
                prepare_for_capture(steps.train_step.optimizer, context.runtime.device)  # then all bits must be equal
            results = [(step.loss, step.num_correct) for step in training_steps(steps, loader)]
    losses, num_correct = (torch.stack(values).tolist() for values in zip(*results, strict=True))
    return losses, num_correct, steps.train_step.model


@pytest.mark.parametrize(
    ("model", "optimizer", "loader"),
    [(*SPEEDNET, "resident"), (*SPEEDNET, "stream"), (*RESNET, "resident"), (*ADAM, "resident")],
    ids=["speed", "stream", "resnet", "adam"],
)
def test_replays_are_the_ordinary_steps(
    model: Any, optimizer: Any, loader: Any, short: Config, gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    if gpu.type == "cpu":  # where torch's optimisers cannot be recorded
        monkeypatch.setattr("fastcifar.training.prepared.is_capturable", lambda optimizer: True)
    config = replace(short, model=model, optimizer=optimizer, loader=loader)
    losses, num_correct, network = losses_of(config, graph=False)
    replayed_losses, replayed_correct, replayed_network = losses_of(config, graph=True)
    assert len(losses) == 30
    if gpu.type == "cpu":
        assert (replayed_losses, replayed_correct) == (losses, num_correct)
        assert weights_sha256(replayed_network.state_dict()) == weights_sha256(network.state_dict())
        return
    # a GPU adds in another order every time, which Muon amplifies
    assert replayed_losses[:3] == pytest.approx(losses[:3], rel=0.02)
    assert sum(replayed_losses) == pytest.approx(sum(losses), rel=0.1)
    assert sum(replayed_correct) == pytest.approx(sum(num_correct), rel=0.1)


def test_the_host_never_waits_during_an_epoch(short: Config, gpu: torch.device, waiting: Any) -> None:
    context = RunContext(short, select_runtime(short))
    with run_settings(context.runtime, deterministic=False):
        ready = PreparedTraining(context)
        with context.open("train", ready.storage) as loader:
            steps = training_steps(ready.begin(context), loader)
            next(steps)
            with waiting.is_an_error():
                results = [step.loss for step in steps]
    assert torch.stack(results).isfinite().all()


def test_a_graph_for_each_image_size_and_each_set_of_learning_parameters(short: Config, simulated_gpu: Any) -> None:
    prepared_for(short)
    # 16 pixels with and without a learning stem, 20 without; 64 test images, a rest of 8, and 40 selected ones
    assert simulated_gpu.captures == 3 + 3


def test_runs_in_one_process_have_the_bits_of_runs_in_their_own(short: Config, gpu: torch.device) -> None:
    if gpu.type == "cuda":
        short = replace(short, deterministic=True)
    trainer = Trainer(short)
    records = [trainer.train(seed)[1] for seed in (0, 1, 0)]
    alone = [train(replace(short, seed=seed))[1] for seed in (0, 1)]
    assert [record["paths"]["step"] for record in records] == ["graph"] * 3
    assert [record["seed"] for record in records] == [0, 1, 0]
    for record, expected in zip(records, (*alone, alone[0]), strict=True):
        for name in ("weights_sha256", "fingerprints", "test_accuracy", "test_accuracy_tta", "train_accuracy"):
            assert record[name] == expected[name], name
    assert records[0]["weights_sha256"] != records[1]["weights_sha256"]


def test_runs_in_one_process_on_a_cpu(tiny: Config, tmp_path: Path) -> None:
    config = replace(tiny, epochs=1, runs=tmp_path, model=ResNetConfig(width=2, dropout=0.1))
    trainer = Trainer(config)
    found = [trainer.train(seed)[1]["weights_sha256"] for seed in (3, 4, 3)]
    alone = [train(replace(config, seed=seed))[1]["weights_sha256"] for seed in (3, 4)]
    assert found == [*alone, alone[0]]


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
    kind: Any, loader: Any, short: Config, simulated_gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared, "GraphSteps", kind)
    ready = prepared_for(replace(short, loader=loader))
    (finding,) = ready.findings
    assert "ordinary steps" in finding
    assert ready.paths["step"] == "eager"


def test_the_check_sees_a_wrong_evaluation(short: Config, simulated_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_an_optimizer_that_cannot_be_captured_takes_ordinary_steps(
    short: Config, simulated_gpu: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model, optimizer = RESNET  # torch's SGD on a CPU
    ready = prepared_for(replace(short, model=model, optimizer=optimizer))
    assert (ready.findings, ready.paths["step"], simulated_gpu.captures) == ([], "eager", 0)
    assert "CUDA graph" in capsys.readouterr().err


def test_the_network_is_evaluated_by_replays_of_any_shape() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    predict = graph.GraphPredict(model, lambda work: work)
    with torch.inference_mode():
        batches = [torch.randn(count, 3, 2, 2) for count in (5, 5, 2)]
        assert all(torch.equal(predict(batch), model(batch)) for batch in batches)
        predict.recording = False
        other = torch.randn(4, 3, 2, 2)
        assert torch.equal(predict(other), model(other))
        assert len(predict._graphs) == 2


@pytest.mark.gpu
def test_a_failed_capture_leaves_the_stream_as_it_was() -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here")
    device = torch.device("cuda", torch.cuda.current_device())
    capture, before = graph.CudaCapture(device), torch.cuda.current_stream(device)
    x, calls = torch.ones(3, device=device), []

    def work() -> None:
        calls.append(1)
        x.add_(1)
        if len(calls) > graph.WARM_UP:
            x.sum().item()

    with pytest.raises(RuntimeError):
        capture(work)
    assert torch.cuda.current_stream(device) == before
    assert torch.randn(3, device=device).isfinite().all()  # the generator is not part of a capture any more
    replay = graph.CudaCapture(device)(lambda: x.mul_(2))
    value = x.clone()
    replay()
    assert torch.equal(x, 2 * value)


def test_eager_steps_and_train_steps_are_what_a_cpu_uses(tiny: Config) -> None:
    context = RunContext(tiny, Runtime(torch.device("cpu"), torch.float32, 1))
    ready = PreparedTraining(context)
    steps = ready.begin(context)
    assert isinstance(steps, EagerSteps)
    assert type(steps.train_step) is TrainStep
    assert ready.paths == {"augmentation": "cpu kernel", "step": "eager"}
