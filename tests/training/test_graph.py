"""The step as a CUDA graph: its bookkeeping with a stand-in for CUDA, and on a GPU the real thing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fastcifar.models.build import build_model
from fastcifar.models.hooks import before_step
from fastcifar.models.resnet import ResNetConfig
from fastcifar.models.speednet import SpeedNetConfig
from fastcifar.optim.adam import AdamConfig
from fastcifar.optim.muon import MuonConfig
from fastcifar.optim.rates import set_lr
from fastcifar.optim.sgd import SgdConfig
from fastcifar.runtime.device import Runtime
from fastcifar.runtime.threads import apply_threads
from fastcifar.training.graph import GraphStep
from fastcifar.training.step import TrainStep

CPU = Runtime(torch.device("cpu"), torch.float32, 1)
SIZES = (16, 16, 20, 16, 20, 20, 16, 20)


class Replayed(GraphStep):
    """Stands in for CUDA: a replay runs the step on the captured tensors and writes to the captured results."""

    captures = 0

    def _captured(self, step: Callable[[], None]) -> Callable[[], None]:
        self.captures += 1
        for _ in range(3):
            step()
        cells = step.__closure__
        assert cells is not None
        results = next(cell.cell_contents for cell in cells if isinstance(cell.cell_contents, list))
        first = results[-1]

        def replay() -> None:
            step()
            for old, new in zip(first, results[-1], strict=True):
                old.copy_(new)

        return replay


class Unable(GraphStep):
    """Fails to capture, after the step has run."""

    def _captured(self, step: Callable[[], None]) -> Callable[[], None]:
        step()
        raise RuntimeError("operation not permitted when stream is capturing")


def trained(kind: type[TrainStep], runtime: Runtime, model_config: Any, optimizer_config: Any) -> Any:
    """Losses, numbers correct, weights and the step itself after a few steps."""
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(3)
    model = build_model(model_config, 10, 0).to(runtime.device).train()
    step = kind(model, optimizer_config.build(model, 8), runtime, 0.1)
    results = []
    with apply_threads(runtime):
        for number, size in enumerate(SIZES):
            images = torch.randn(8, 3, size, size, generator=generator).contiguous(memory_format=torch.channels_last)
            labels = torch.randint(0, 10, (8,), generator=generator)
            set_lr(step.optimizer, 1 - number / 8)
            before_step(model, number, 1)
            results.append(step(images.to(runtime.device), labels.to(runtime.device)))
    losses, num_correct = (torch.stack(values).cpu() for values in zip(*results, strict=True))
    return losses, num_correct, [tensor.cpu() for tensor in model.state_dict().values()], step


SPEEDNET = (SpeedNetConfig(widths=(8, 8), activation="gelu", stem_epochs=4), MuonConfig())
RESNET = (ResNetConfig(width=2, dropout=0.2), SgdConfig(lr=0.05, nesterov=True, weight_decay=1e-3))
ADAM = (ResNetConfig(width=2), AdamConfig(lr=0.001))


@pytest.mark.parametrize(
    ("kind", "model", "optimizer", "captures"),
    [
        (Replayed, *SPEEDNET, 4),  # sizes 16 and 20, each again with a frozen stem
        (Replayed, *RESNET, 2),
        (Replayed, *ADAM, 2),
        (Unable, *SPEEDNET, None),
    ],
)
def test_replays_are_the_ordinary_steps(
    kind: type[GraphStep],
    model: Any,
    optimizer: Any,
    captures: int | None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # on a GPU the optimisers are fused; on a CPU a tensor as learning rate would change the rounding
    monkeypatch.setattr("fastcifar.training.graph.is_capturable", lambda optimizer: True)
    monkeypatch.setattr("fastcifar.training.graph.prepare_for_capture", lambda optimizer, device: None)
    losses, num_correct, weights, _ = trained(TrainStep, CPU, model, optimizer)
    found_losses, found_correct, found_weights, step = trained(kind, CPU, model, optimizer)
    assert torch.equal(found_losses, losses)
    assert torch.equal(found_correct, num_correct)
    assert all(torch.equal(a, b) for a, b in zip(found_weights, weights, strict=True))
    assert getattr(step, "captures", None) == captures
    assert ("not permitted" in capsys.readouterr().err) == (kind is Unable)


def test_an_optimizer_that_cannot_be_captured_takes_ordinary_steps() -> None:
    *_, step = trained(Replayed, CPU, *RESNET)
    assert step.captures == 0


@pytest.mark.gpu
@pytest.mark.parametrize(("model", "optimizer"), [SPEEDNET, RESNET, ADAM])
def test_graphs_on_a_gpu(model: Any, optimizer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    runtime = Runtime(torch.device("cuda"), torch.float32, 1)
    losses, num_correct, weights, _ = trained(TrainStep, runtime, model, optimizer)
    replayed_losses, replayed_correct, replayed_weights, _ = trained(GraphStep, runtime, model, optimizer)
    assert capsys.readouterr().err == ""
    torch.testing.assert_close(replayed_losses, losses, rtol=1e-3, atol=1e-4)
    assert (replayed_correct - num_correct).abs().max() <= 1
    torch.testing.assert_close(replayed_weights, weights, rtol=1e-2, atol=1e-3)
