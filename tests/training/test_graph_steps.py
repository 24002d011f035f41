"""Recorded steps against ordinary ones, on a simulated GPU everywhere and on a real one where there is one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fastcifar.config import Config
from fastcifar.models.resnet import ResNetConfig
from fastcifar.models.speednet import SpeedNetConfig
from fastcifar.optim.adam import AdamConfig
from fastcifar.optim.muon import MuonConfig
from fastcifar.optim.rates import prepare_for_capture
from fastcifar.optim.sgd import SgdConfig
from fastcifar.runs.record import weights_sha256
from fastcifar.runtime.device import Runtime, select_runtime
from fastcifar.runtime.threads import run_settings
from fastcifar.training import graph
from fastcifar.training.context import RunContext
from fastcifar.training.loop import EagerSteps, training_steps
from fastcifar.training.prepared import PreparedTraining
from fastcifar.training.step import TrainStep
from fastcifar.training.trainer import Trainer, train

SPEEDNET = (SpeedNetConfig(widths=(16, 16), activation="gelu", stem_epochs=1), MuonConfig())
RESNET = (ResNetConfig(width=2), SgdConfig(lr=0.02, nesterov=True, weight_decay=1e-3))
ADAM = (ResNetConfig(width=2), AdamConfig(lr=0.001))


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


def test_a_graph_for_each_image_size_and_each_set_of_learning_parameters(
    short: Config, simulated_gpu: Any, prepared_for: Any
) -> None:
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


def test_an_optimizer_that_cannot_be_captured_takes_ordinary_steps(
    short: Config, simulated_gpu: Any, prepared_for: Any, capsys: pytest.CaptureFixture[str]
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
