"""FFCV's example network: parameters, shapes, and its last layers."""

import torch
from torch.nn import functional as F

from fastcifar.models.ffcv_net import FfcvNet, FfcvNetConfig
from fastcifar.models.layer_table import layers


def test_as_published() -> None:
    network, *inner = layers(FfcvNetConfig())
    assert network.parameters == 2_274_880
    assert {layer.name: layer.shape for layer in inner if layer.depth == 1} == {
        "prep": (64, 32, 32),
        "down": (128, 16, 16),
        "residual1": (128, 16, 16),
        "widen": (256, 16, 16),
        "residual2": (256, 8, 8),
        "narrow": (128, 6, 6),
        "linear": (10,),
    }


def test_the_last_layers_are_max_linear_scale() -> None:
    torch.manual_seed(0)
    model = FfcvNet(FfcvNetConfig(width=4, logit_scale=0.3), classes=3).eval()
    x = torch.randn(2, 3, 32, 32)
    y = F.max_pool2d(model.widen(model.residual1(model.down(model.prep(x)))), 2)
    y = model.narrow(model.residual2(y)).flatten(2).max(2).values
    torch.testing.assert_close(model(x), 0.3 * y @ model.linear.weight.T)
