"""FFCV's example network: parameters, shapes, arithmetic against its layers in a row."""

import pytest
import torch
from stages import stage_shapes
from torch.nn import functional as F

from fastcifar.config import FfcvNetConfig
from fastcifar.models.ffcv_net import FfcvNet

STAGES = ("prep", "down", "residual1", "widen", "residual2", "narrow", "linear")


def test_as_published() -> None:
    model = FfcvNet()
    assert sum(p.numel() for p in model.parameters()) == 2_274_880
    assert stage_shapes(model, STAGES, 32) == [
        (64, 32, 32),
        (128, 16, 16),
        (128, 16, 16),
        (256, 16, 16),
        (256, 8, 8),
        (128, 6, 6),
        (10,),
    ]


@pytest.mark.parametrize("side", [16, 17, 24, 31])
def test_smaller_images(side: int) -> None:
    assert stage_shapes(FfcvNet(FfcvNetConfig(width=4)), STAGES, side)[-1] == (10,)


def test_the_last_layers_are_max_linear_scale() -> None:
    torch.manual_seed(0)
    model = FfcvNet(FfcvNetConfig(width=4, logit_scale=0.3), classes=3).eval()
    x = torch.randn(2, 3, 32, 32)
    y = F.max_pool2d(model.widen(model.residual1(model.down(model.prep(x)))), 2)
    y = model.narrow(model.residual2(y)).flatten(2).max(2).values
    torch.testing.assert_close(model(x), 0.3 * y @ model.linear.weight.T)
