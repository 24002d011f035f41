"""Accuracy and logits of a toy model whose answers can be read off its images."""

import numpy as np
import pytest
import torch
from torch import nn

from fastcifar.runtime.device import Runtime
from fastcifar.training.evaluation import accuracy, predict_logits, predict_tta, smallest_margins

RUNTIME = Runtime(torch.device("cpu"), torch.float32, 1)


class LeftOrRight(nn.Module):
    """Logits: brightness of the left and of the right half. While training, nonsense."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        half = x.size(3) // 2
        return torch.stack((x[..., :half].mean((1, 2, 3)), x[..., half:].mean((1, 2, 3))), 1)


def batches(dtype: torch.dtype = torch.float32) -> list[tuple[torch.Tensor, torch.Tensor]]:
    images = torch.zeros(7, 3, 4, 4, dtype=dtype)
    sides = torch.tensor([0, 1, 1, 0, 1, 0, 0])
    for image, side in zip(images, sides, strict=True):
        image[..., 2 * side : 2 * side + 2] = 1
    return [(images[:4], sides[:4]), (images[4:], sides[4:])]


def test_logits_and_labels_in_order() -> None:
    logits, labels = predict_logits(LeftOrRight(), batches(), RUNTIME)
    assert labels.tolist() == [0, 1, 1, 0, 1, 0, 0]
    assert torch.equal(logits, torch.eye(2)[labels])
    assert accuracy(logits, labels) == 1.0


def test_mirrored_views_are_the_mean_with_the_mirror_image() -> None:
    plain, labels = predict_logits(LeftOrRight(), batches(), RUNTIME)
    logits = predict_tta(LeftOrRight(), batches(), RUNTIME, "flip_tta", 3 * plain)
    assert torch.equal(logits, (3 * torch.eye(2)[labels] + torch.eye(2)[1 - labels]) / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_logits_are_float32_whatever_the_arithmetic(dtype: torch.dtype) -> None:
    runtime = Runtime(torch.device("cpu"), dtype, 1)
    logits, _ = predict_logits(LeftOrRight(), batches(dtype), runtime)
    assert logits.dtype == torch.float32


def test_batch_size_has_no_influence() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    images = torch.randn(10, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(10, dtype=torch.int64)
    whole, _ = predict_logits(model, [(images, labels)], RUNTIME)
    single, _ = predict_logits(model, list(zip(images.split(1), labels.split(1), strict=True)), RUNTIME)
    torch.testing.assert_close(whole, single)


def test_accuracy() -> None:
    logits = torch.tensor([[3.0, 1.0], [0.0, 2.0], [5.0, 4.0], [1.0, 0.0]])
    assert accuracy(logits, torch.tensor([0, 1, 1, 0])) == 0.75


def test_the_fifth_whose_two_best_lie_closest_is_unsure() -> None:
    logits = torch.tensor([[9.0, 0, 8.9], [5.0, 4.8, 0], [0, -7.0, 7.0], [1.0, 1.0, 0], [3.0, 0, 1.0]]).repeat(2, 1)
    assert smallest_margins(logits).nonzero().squeeze(1).tolist() == [3, 8]
    assert smallest_margins(logits[:9]).nonzero().squeeze(1).tolist() == [3]
    assert not smallest_margins(logits[:4]).any()
    assert smallest_margins(torch.zeros(10, 2)).nonzero().squeeze(1).tolist() == [0, 1]


class Corner(nn.Module):
    """Logits: the first pixel of the first row, and of the last column."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack((x[:, 0, 0, 0], x[:, 0, 0, -1]), 1)


def test_six_views_of_the_unsure_and_one_of_the_others() -> None:
    images = torch.rand(10, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    pairs = [(images[:7], torch.zeros(7, dtype=torch.int64)), (images[7:], torch.zeros(3, dtype=torch.int64))]
    plain, _ = predict_logits(Corner(), pairs, RUNTIME)
    logits = predict_tta(Corner(), pairs, RUNTIME, "selective_tta", plain)
    unsure = smallest_margins(plain)
    assert torch.equal(logits[~unsure], plain[~unsure])
    for image, found in zip(images[unsure, 0].numpy(), logits[unsure].numpy(), strict=True):
        moved = np.pad(image, 1, mode="reflect")
        views = [(image, 1 / 4), (moved[:6, :6], 1 / 8), (moved[2:, 2:], 1 / 8)]
        corners = sum(weight * (view[0, [0, -1]] + view[0, [-1, 0]]) for view, weight in views)
        np.testing.assert_allclose(found, corners, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_six_views_in_sixteen_bits(dtype: torch.dtype) -> None:
    runtime = Runtime(torch.device("cpu"), dtype, 1)
    images = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    logits = predict_tta(Corner(), [(images.to(dtype), torch.zeros(5))], runtime, "selective_tta", torch.zeros(5, 2))
    assert logits.dtype == torch.float32
