"""Accuracy and logits of toy models whose answers can be read off their images, and of a run in selective TTA."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fastcifar.analysis.evaluation import evaluate_run
from fastcifar.analysis.report.page import build_report
from fastcifar.cli.train import summary
from fastcifar.config import Config, EvaluationConfig
from fastcifar.evaluation import title_of
from fastcifar.evaluation.flip_tta import FlipTta
from fastcifar.evaluation.logits import accuracy, evaluate_logits, predict_logits, predictor
from fastcifar.evaluation.selective_tta import SelectiveTta, smallest_margins
from fastcifar.evaluation.single_view import SingleView
from fastcifar.export.model_card import model_card
from fastcifar.models.build import build_model
from fastcifar.models.speednet import SpeedNetConfig
from fastcifar.runs.load import load_run
from fastcifar.runtime.device import Runtime
from fastcifar.training.trainer import train

RUNTIME = Runtime(torch.device("cpu"), torch.float32, 1)


class Halves(nn.Module):
    """Logits: brightness of the left and of the right half. Only for evaluation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        half = x.size(3) // 2
        return torch.stack((x[..., :half].mean((1, 2, 3)), x[..., half:].mean((1, 2, 3))), 1)


class Corners(nn.Module):
    """Logits: the first and the last pixel of the first row."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack((x[:, 0, 0, 0], x[:, 0, 0, -1]), 1)


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    images, sides = torch.zeros(7, 3, 4, 4), torch.tensor([0, 1, 1, 0, 1, 0, 0])
    for image, side in zip(images, sides, strict=True):
        image[..., 2 * side : 2 * side + 2] = 1
    return [(images[:4], sides[:4]), (images[4:], sides[4:])]


def test_logits_and_labels_in_order() -> None:
    logits, labels = predict_logits(predictor(Halves(), RUNTIME), batches())
    assert labels.tolist() == [0, 1, 1, 0, 1, 0, 0]
    assert torch.equal(logits, torch.eye(2)[labels])
    assert accuracy(logits, labels) == 1.0
    assert accuracy(logits[:4], torch.tensor([0, 1, 1, 1])) == 0.75


def test_flip_tta_is_the_mean_with_the_mirror_image() -> None:
    plain, labels = predict_logits(predictor(Halves(), RUNTIME), batches())
    logits = evaluate_logits(FlipTta(), predictor(Halves(), RUNTIME), batches(), 3 * plain)
    assert torch.equal(logits, (3 * torch.eye(2)[labels] + torch.eye(2)[1 - labels]) / 2)


def test_a_single_view_is_what_is_given() -> None:
    plain, _ = predict_logits(predictor(Halves(), RUNTIME), batches())
    assert torch.equal(evaluate_logits(SingleView(), predictor(Halves(), RUNTIME), [], plain), plain)


def test_the_batch_size_has_no_influence() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    images = torch.randn(10, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(10, dtype=torch.int64)
    predict = predictor(model, RUNTIME)
    whole, _ = predict_logits(predict, [(images, labels)])
    single, _ = predict_logits(predict, list(zip(images.split(1), labels.split(1), strict=True)))
    torch.testing.assert_close(whole, single)


def test_one_image_in_five_has_a_small_margin() -> None:
    logits = torch.tensor([[9.0, 0, 8.9], [5.0, 4.8, 0], [0, -7.0, 7.0], [1.0, 1.0, 0], [3.0, 0, 1.0]]).repeat(2, 1)
    assert smallest_margins(logits, 5).tolist() == [3, 8]
    assert smallest_margins(logits[:9], 5).tolist() == [3]
    assert smallest_margins(logits[:4], 5).tolist() == []
    assert smallest_margins(torch.zeros(10, 2), 5).tolist() == [0, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_selective_tta_has_six_views_of_the_selected_images(dtype: torch.dtype) -> None:
    runtime, generator = Runtime(torch.device("cpu"), dtype, 1), torch.Generator().manual_seed(0)
    images, labels = torch.rand(10, 3, 6, 6, generator=generator).to(dtype), torch.zeros(10, dtype=torch.int64)
    pairs = [(images[:7], labels[:7]), (images[7:], labels[7:])]
    predict = predictor(Corners(), runtime)
    plain, _ = predict_logits(predict, pairs)
    logits = evaluate_logits(SelectiveTta(), predict, pairs, plain)
    assert plain.dtype == logits.dtype == torch.float32
    selected = torch.zeros(10, dtype=torch.bool).index_fill(0, smallest_margins(plain, 5), True)
    assert torch.equal(logits[~selected], plain[~selected])
    for image, found in zip(images.float()[selected, 0].numpy(), logits[selected].numpy(), strict=True):
        padded = np.pad(image, 1, mode="reflect")
        views = [(image, 1 / 4), (padded[:6, :6], 1 / 8), (padded[2:, 2:], 1 / 8)]
        expected = sum(weight * (view[0, [0, -1]] + view[0, [-1, 0]]) for view, weight in views)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_fewer_images_than_one_is_selected_of() -> None:
    plain, _ = predict_logits(predictor(Halves(), RUNTIME), batches())
    assert torch.equal(evaluate_logits(SelectiveTta(one_in=8), predictor(Halves(), RUNTIME), batches(), plain), plain)


class NoReads(TorchDispatchMode):
    """Refuses what waits for a GPU: reading a value, and results whose size depends on values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        waits = "_local_scalar_dense", "nonzero", "masked_select", "unique"
        assert not any(name in str(func) for name in waits), func
        if "index" in str(func):
            indices = [x for arg in args if isinstance(arg, list | tuple) for x in arg if isinstance(x, torch.Tensor)]
            assert all(x.dtype != torch.bool for x in indices), func
        return func(*args, **(kwargs or {}))


@contextmanager
def without_waiting(device: torch.device) -> Iterator[None]:
    """Makes it an error to wait for a GPU; on a CPU, to do what would."""
    if device.type == "cpu":
        with NoReads():
            yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("evaluation", [SingleView(), FlipTta(), SelectiveTta()])
def test_evaluations_do_not_wait_for_the_device(evaluation: EvaluationConfig, device: str) -> None:
    runtime = Runtime(torch.device(device), torch.float32, 1)
    model = build_model(SpeedNetConfig(widths=(8,)), 10, 0).to(device)
    images = torch.randn(25, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(25) % 10
    pairs = list(zip(images.to(device).split(10), labels.to(device).split(10), strict=True))
    predict = predictor(model, runtime)
    predict(pairs[0][0])  # the first call of a network loads libraries
    with torch.inference_mode(), without_waiting(runtime.device):
        plain, found = predict_logits(predict, pairs)
        logits = evaluation.logits(predict, pairs, plain)
    assert plain.device.type == found.device.type == logits.device.type == device
    assert torch.equal(found.cpu(), labels)
    assert torch.equal(evaluate_logits(evaluation, predict, pairs, plain), logits)


def test_another_predict_may_take_its_place() -> None:
    """Such as one that pads batches to a fixed length, because a CUDA graph has one."""
    lengths: list[int] = []
    model = Corners()

    def predict(images: torch.Tensor) -> torch.Tensor:
        lengths.append(len(images))
        padded = torch.cat((images, images.new_zeros(7 - len(images), *images.shape[1:])))
        return model(padded)[: len(images)]

    images = torch.rand(10, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    pairs = [(images[:7], torch.zeros(7, dtype=torch.int64)), (images[7:], torch.zeros(3, dtype=torch.int64))]
    plain, _ = predict_logits(predict, pairs)
    expected, _ = predict_logits(predictor(model, RUNTIME), pairs)
    assert torch.equal(plain, expected)
    for evaluation in (FlipTta(), SelectiveTta()):
        own = evaluate_logits(evaluation, predict, pairs, plain)
        assert torch.equal(own, evaluate_logits(evaluation, predictor(model, RUNTIME), pairs, plain))
    assert set(lengths) == {7, 3, 2}


def test_a_run_in_selective_tta(tiny: Config, tmp_path: Path) -> None:
    """Evaluated again it gives the accuracies of its record; every output shows them and names this evaluation."""
    folder, record = train(replace(tiny, epochs=0.5, evaluation=SelectiveTta(), runs=tmp_path))
    run = load_run(folder)
    evaluation = evaluate_run(run)
    found = {kind: (logits.argmax(1) == evaluation.labels).mean() for kind, logits in evaluation.logits.items()}
    assert found == {"single_view": record["test_accuracy"], "selective_tta": record["test_accuracy_tta"]}
    changed = (evaluation.logits["single_view"] != evaluation.logits["selective_tta"]).any(1)
    assert changed.sum() == len(changed) // 5
    for text in (summary(folder, record), model_card(run), build_report([folder])):
        assert title_of("selective_tta") in text
        assert f"{record['test_accuracy_tta']:.2%}" in text
