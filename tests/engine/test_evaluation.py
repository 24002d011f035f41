"""Accuracy and logits of a toy model whose answers can be read off its pictures."""

import pytest
import torch
from torch import nn

from fastcifar.device import Placement
from fastcifar.engine.evaluate import accuracy, predict_logits

PLACEMENT = Placement(torch.device("cpu"), torch.float32, 1)


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
    logits, labels = predict_logits(LeftOrRight(), batches(), PLACEMENT)
    assert labels.tolist() == [0, 1, 1, 0, 1, 0, 0]
    assert torch.equal(logits, torch.eye(2)[labels])
    assert accuracy(logits, labels) == 1.0


def test_mirror_flips_left_and_right() -> None:
    logits, labels = predict_logits(LeftOrRight(), batches(), PLACEMENT, mirror=True)
    assert torch.equal(logits, torch.eye(2)[1 - labels])
    assert accuracy(logits, labels) == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_logits_are_float32_whatever_the_arithmetic(dtype: torch.dtype) -> None:
    placement = Placement(torch.device("cpu"), dtype, 1)
    logits, _ = predict_logits(LeftOrRight(), batches(dtype), placement)
    assert logits.dtype == torch.float32


def test_batch_size_has_no_influence() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    images = torch.randn(10, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(10, dtype=torch.int64)
    whole, _ = predict_logits(model, [(images, labels)], PLACEMENT)
    single, _ = predict_logits(model, list(zip(images.split(1), labels.split(1), strict=True)), PLACEMENT)
    torch.testing.assert_close(whole, single)


def test_accuracy() -> None:
    logits = torch.tensor([[3.0, 1.0], [0.0, 2.0], [5.0, 4.0], [1.0, 0.0]])
    assert accuracy(logits, torch.tensor([0, 1, 1, 0])) == 0.75
