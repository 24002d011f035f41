"""One step: loss, number correct, dtypes, and float16's gradient scaler."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD

from fastcifar.optim.muon import MuonConfig
from fastcifar.optim.rates import set_lr
from fastcifar.runtime.device import Runtime
from fastcifar.training.history import History
from fastcifar.training.step import TrainStep

CPU = torch.device("cpu")


def linear() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(len(p.shape))))
    return model


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.randn(8, 3, 2, 2, generator=torch.Generator().manual_seed(5))
    return images, torch.arange(8) % 3


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_a_step_in_float32_is_one_of_plain_torch(label_smoothing: float) -> None:
    images, labels = batch()
    model, twin = linear(), linear()
    step = TrainStep(model, SGD(list(model.parameters()), lr=0.5), Runtime(CPU, torch.float32, 1), label_smoothing)
    set_lr(step.optimizer, 0.5)
    loss, num_correct = step(images, labels)
    logits = twin(images)
    expected = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    expected.backward()
    assert torch.equal(loss, expected.detach())
    assert loss.shape == num_correct.shape == ()
    assert not loss.requires_grad
    assert num_correct.item() == (logits.argmax(1) == labels).sum()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert q.grad is not None
        assert torch.equal(p, q - 0.25 * q.grad)
        assert p.grad is None
    assert step.scaler is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_step_in_16_bits_is_close_to_one_in_float32(dtype: torch.dtype) -> None:
    images, labels = batch()
    models = [linear(), linear()]
    for model, kind in zip(models, (dtype, torch.float32), strict=True):
        step = TrainStep(model, SGD(list(model.parameters()), lr=0.5), Runtime(CPU, kind, 1), 0.0)
        step(images.to(kind), labels)
    for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert p.dtype == torch.float32
        torch.testing.assert_close(p, q, rtol=0.02, atol=0.02)
        assert not torch.equal(p, q)


def test_float16_skips_a_step_whose_gradients_overflow_and_recovers() -> None:
    images, labels = batch()
    images = (images * 10).half()
    model = linear()
    step = TrainStep(model, SGD(list(model.parameters()), lr=0.1), Runtime(CPU, torch.float16, 1), 0.0)
    assert step.scaler is not None
    before = [p.detach().clone() for p in model.parameters()]
    scale = step.scaler.get_scale()
    skipped = 0
    while all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True)):
        loss, _ = step(images, labels)
        assert torch.isfinite(loss)
        skipped += 1
        assert skipped < 30
    assert skipped > 1
    assert step.scaler.get_scale() == scale / 2 ** (skipped - 1)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_the_scaler_reaches_all_groups() -> None:
    """Every gradient must be unscaled before the update."""
    linear = nn.Linear(16, 3)
    model, rest = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Flatten(), linear), list(linear.parameters())
    optimizer = MuonConfig(lr=0.1, bias_lr=1e-3 / 8, head_lr=1e-3 / 8).build(model, 8)
    step = TrainStep(model, optimizer, Runtime(CPU, torch.float16, 1), 0.0)
    assert step.scaler is not None
    step.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    before = [p.detach().clone() for p in rest]
    step(torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(1)).half(), torch.arange(8) % 3)
    moved = [(p - q).abs().max().item() for p, q in zip(rest, before, strict=True)]
    assert all(0 < distance < 0.005 for distance in moved)


def test_nothing_waits_for_the_gpu_between_two_reads(gpu: torch.device, waiting: Any, tmp_path: Path) -> None:
    """Steps and history, in torch's mode in which a synchronisation is an error."""
    runtime = Runtime(gpu, torch.float32, 1)
    model = linear().to(gpu)
    images, labels = (tensor.to(gpu) for tensor in batch())
    step = TrainStep(model, SGD(list(model.parameters()), lr=0.1), runtime, 0.1)
    with (tmp_path / "metrics").open("w") as file:
        history = History(file, total=9, batch_size=len(labels), classes=10)
        step(images, labels)
        with waiting.is_an_error():
            for number in range(9):
                rates = set_lr(step.optimizer, 1 - number / 9)
                history.add({"step": number, **rates._asdict()}, *step(images, labels))
        history.flush()
    assert len((tmp_path / "metrics").read_text().splitlines()) == 9
