"""The step that records itself: its bookkeeping with a recorder of our own, and on a GPU the real thing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fastcifar.config import AdamConfig, MuonConfig, ResNetConfig, SgdConfig, SpeedNetConfig
from fastcifar.models.build import build_model
from fastcifar.optim.build import build_optimizer
from fastcifar.runtime.device import Runtime
from fastcifar.training.graph import GraphStep
from fastcifar.training.step import TrainStep

CPU = Runtime(torch.device("cpu"), torch.float32, 1)


class Replayed(GraphStep):
    """Stands in for CUDA: a replay runs the step on the recorded tensors and writes to the recorded results."""

    recordings = 0

    def _captured(self, step: Callable[[], None]) -> Callable[[], None]:
        self.recordings += 1
        for _ in range(3):
            step()
        results = step.__closure__
        assert results is not None
        recorded = next(cell.cell_contents for cell in results if isinstance(cell.cell_contents, list))
        first = recorded[-1]

        def replay() -> None:
            step()
            for old, new in zip(first, recorded[-1], strict=True):
                old.copy_(new)

        return replay

    def _random_state(self) -> torch.Tensor:
        return torch.get_rng_state()

    def _restore_random_state(self, state: torch.Tensor) -> None:
        torch.set_rng_state(state)


def batches(device: str = "cpu") -> list[tuple[torch.Tensor, torch.Tensor, float]]:
    generator = torch.Generator().manual_seed(1)
    made = []
    for step, size in enumerate((16, 16, 24, 16, 24, 24)):
        images = torch.randn(8, 3, size, size, generator=generator).contiguous(memory_format=torch.channels_last)
        labels = torch.randint(0, 10, (8,), generator=generator)
        made.append((images.to(device), labels.to(device), 1 - step / 6))
    return made


def trained(kind: type[TrainStep], runtime: Runtime, model_config: Any, optimizer_config: Any) -> Any:
    device = runtime.device.type
    torch.manual_seed(3)
    model = build_model(model_config, 10, 0).to(runtime.device)
    step = kind(model, build_optimizer(model, optimizer_config, 8), runtime, 0.1)
    model.train()
    results = []
    for number, (images, labels, lr_scale) in enumerate(batches(device)):
        if isinstance(model_config, SpeedNetConfig):
            model.stem_learns(number < 4)  # type: ignore[operator]
        results.append(step(images, labels, lr_scale))
    losses = torch.stack([loss for loss, _ in results]).cpu()
    num_correct = torch.stack([num_correct for _, num_correct in results]).cpu()
    return losses, num_correct, [tensor.cpu() for tensor in model.state_dict().values()], step


NETWORKS = [
    (SpeedNetConfig(widths=(16, 32), activation="gelu"), MuonConfig()),
    (ResNetConfig(width=4, dropout=0.2), SgdConfig(lr=0.05, nesterov=True, weight_decay=1e-3, decoupled=True)),
    (ResNetConfig(width=4), AdamConfig()),
]


@pytest.mark.parametrize(("model", "optimizer"), NETWORKS)
def test_replays_are_the_ordinary_steps(model: Any, optimizer: Any) -> None:
    losses, num_correct, weights, _ = trained(TrainStep, CPU, model, optimizer)
    replayed_losses, replayed_correct, replayed_weights, step = trained(Replayed, CPU, model, optimizer)
    torch.testing.assert_close(replayed_losses, losses, rtol=1e-4, atol=1e-5)
    assert torch.equal(replayed_correct, num_correct)
    torch.testing.assert_close(replayed_weights, weights, rtol=1e-3, atol=1e-4)
    # sizes 16, 24, and both again once the stem has stopped learning, of which only 24 occurs
    expected = {SpeedNetConfig: 3, ResNetConfig: 2}[type(model)]
    assert step.recordings == (0 if isinstance(optimizer, AdamConfig) else expected)


def test_where_nothing_can_be_recorded_the_ordinary_step_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    class Unable(Replayed):
        def _captured(self, step: Callable[[], None]) -> Callable[[], None]:
            step()
            raise RuntimeError("operation not permitted when stream is capturing")

    model, optimizer = NETWORKS[0]
    losses, _, weights, _ = trained(TrainStep, CPU, model, optimizer)
    found_losses, _, found_weights, _ = trained(Unable, CPU, model, optimizer)
    assert torch.equal(losses, found_losses)
    assert all(torch.equal(a, b) for a, b in zip(weights, found_weights, strict=True))
    assert capsys.readouterr().err == (
        "no CUDA graph (operation not permitted when stream is capturing); training goes on without\n"
    )


@pytest.mark.gpu
@pytest.mark.parametrize(("model", "optimizer"), NETWORKS[:2])
def test_graphs_on_a_gpu(model: Any, optimizer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    runtime = Runtime(torch.device("cuda"), torch.float32, 1)
    losses, num_correct, weights, _ = trained(TrainStep, runtime, model, optimizer)
    replayed_losses, replayed_correct, replayed_weights, _ = trained(GraphStep, runtime, model, optimizer)
    assert capsys.readouterr().err == ""
    torch.testing.assert_close(replayed_losses, losses, rtol=1e-3, atol=1e-4)
    assert (replayed_correct - num_correct).abs().max() <= 1
    torch.testing.assert_close(replayed_weights, weights, rtol=1e-2, atol=1e-3)
