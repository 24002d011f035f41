"""The reference ResNet: width, order of layers, pooling, dropout. tests/recipes checks its published variants."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcifar.models.layer_table import layers
from fastcifar.models.resnet import Residual, ResNet, ResNetConfig


@pytest.mark.parametrize("width", [1, 96])
def test_width_scales_every_layer(width: int) -> None:
    channels = {layer.name: layer.shape[0] for layer in layers(ResNetConfig(width=width)) if layer.depth == 1}
    assert channels == {"prep": width, "layer1": 2 * width, "layer2": 4 * width, "layer3": 8 * width, "linear": 10}


def test_pooling_comes_before_the_norm() -> None:
    """conv -> max-pool -> BN -> ReLU, as published; with a negative scale in BN the order matters."""
    block = ResNet(ResNetConfig(width=2)).layer2.eval()
    with torch.no_grad():
        block.norm.weight.fill_(-1)
        block.norm.bias.fill_(3)
        x = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(1))
        expected = F.relu(block.norm(F.max_pool2d(block.conv(x), 2)))
        assert torch.equal(block(x), expected)


def pooled_positions(config: ResNetConfig, side: int) -> tuple[int, set[tuple[int, int]]]:
    """The side of layer 3's feature map, and its positions that the logits depend on."""
    model = ResNet(config).eval()

    def keep(module: nn.Module, inputs: Sequence[Tensor], output: Tensor) -> Tensor:
        # replace layer 3's feature map by one per position, which is 1 there and 0 elsewhere
        size = output.size(2)
        one_hot = torch.zeros(size * size, *output.shape[1:])
        for position in range(size * size):
            one_hot[position, :, position // size, position % size] = 1
        return one_hot

    model.layer3.register_forward_hook(keep)
    with torch.no_grad():
        logits = model(torch.zeros(1, 3, side, side))
        nothing = model.linear(torch.zeros(1, model.linear.in_features))
    size = math.isqrt(len(logits))
    seen = {(i // size, i % size) for i in range(len(logits)) if not torch.equal(logits[i], nothing[0])}
    return size, seen


@pytest.mark.parametrize("side", [16, 17, 31, 32])
@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize("pool", [True, False])
def test_last_pooling_is_max_pool_4(side: int, pad: int, pool: bool) -> None:
    """Windows of 4x4, which ignore the rest of variant B's 7x7 feature map; a smaller feature map is used whole."""
    config = ResNetConfig(width=1, layer2_padding=pad, layer3_pool=pool)  # type: ignore[arg-type]
    size, seen = pooled_positions(config, side)
    used = size // 4 * 4 if size > 4 else size
    assert seen == {(y, x) for y in range(used) for x in range(used)}
    if (side, pad, pool) == (32, 0, False):
        assert (size, used) == (7, 4)


def test_dropout_only_while_training() -> None:
    model = ResNet(ResNetConfig(width=4, dropout=0.5))
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model.train()
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_residual_adds_its_input() -> None:
    model = ResNet(ResNetConfig(width=2)).eval()
    residual = model.layer1[1]
    assert isinstance(residual, Residual)
    x = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(residual(x), x + residual.inner(x))
