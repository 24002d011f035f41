"""Accuracy and logits of toy models whose answers can be read off their images, and of a run in selective TTA."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fastcifar.analysis.evaluation import evaluate_run
from fastcifar.analysis.report.page import build_report
from fastcifar.cli.train import summary
from fastcifar.config import Config
from fastcifar.evaluation import title_of
from fastcifar.evaluation.flip_tta import FlipTta
from fastcifar.evaluation.logits import accuracy, evaluate_logits, predict_logits
from fastcifar.evaluation.selective_tta import SelectiveTta, smallest_margins
from fastcifar.evaluation.single_view import SingleView
from fastcifar.export.model_card import model_card
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
    logits, labels = predict_logits(Halves(), batches(), RUNTIME)
    assert labels.tolist() == [0, 1, 1, 0, 1, 0, 0]
    assert torch.equal(logits, torch.eye(2)[labels])
    assert accuracy(logits, labels) == 1.0
    assert accuracy(logits[:4], torch.tensor([0, 1, 1, 1])) == 0.75


def test_flip_tta_is_the_mean_with_the_mirror_image() -> None:
    plain, labels = predict_logits(Halves(), batches(), RUNTIME)
    logits = evaluate_logits(FlipTta(), Halves(), batches(), RUNTIME, 3 * plain)
    assert torch.equal(logits, (3 * torch.eye(2)[labels] + torch.eye(2)[1 - labels]) / 2)


def test_a_single_view_is_what_is_given() -> None:
    plain, _ = predict_logits(Halves(), batches(), RUNTIME)
    assert torch.equal(evaluate_logits(SingleView(), Halves(), [], RUNTIME, plain), plain)


def test_the_batch_size_has_no_influence() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    images = torch.randn(10, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(10, dtype=torch.int64)
    whole, _ = predict_logits(model, [(images, labels)], RUNTIME)
    single, _ = predict_logits(model, list(zip(images.split(1), labels.split(1), strict=True)), RUNTIME)
    torch.testing.assert_close(whole, single)


def test_one_image_in_five_has_a_small_margin() -> None:
    logits = torch.tensor([[9.0, 0, 8.9], [5.0, 4.8, 0], [0, -7.0, 7.0], [1.0, 1.0, 0], [3.0, 0, 1.0]]).repeat(2, 1)
    assert smallest_margins(logits, 5).nonzero().squeeze(1).tolist() == [3, 8]
    assert smallest_margins(logits[:9], 5).nonzero().squeeze(1).tolist() == [3]
    assert not smallest_margins(logits[:4], 5).any()
    assert smallest_margins(torch.zeros(10, 2), 5).nonzero().squeeze(1).tolist() == [0, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_selective_tta_has_six_views_of_the_selected_images(dtype: torch.dtype) -> None:
    runtime, generator = Runtime(torch.device("cpu"), dtype, 1), torch.Generator().manual_seed(0)
    images, labels = torch.rand(10, 3, 6, 6, generator=generator).to(dtype), torch.zeros(10, dtype=torch.int64)
    pairs = [(images[:7], labels[:7]), (images[7:], labels[7:])]
    plain, _ = predict_logits(Corners(), pairs, runtime)
    logits = evaluate_logits(SelectiveTta(), Corners(), pairs, runtime, plain)
    assert plain.dtype == logits.dtype == torch.float32
    selected = smallest_margins(plain, 5)
    assert torch.equal(logits[~selected], plain[~selected])
    for image, found in zip(images.float()[selected, 0].numpy(), logits[selected].numpy(), strict=True):
        padded = np.pad(image, 1, mode="reflect")
        views = [(image, 1 / 4), (padded[:6, :6], 1 / 8), (padded[2:, 2:], 1 / 8)]
        expected = sum(weight * (view[0, [0, -1]] + view[0, [-1, 0]]) for view, weight in views)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


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
