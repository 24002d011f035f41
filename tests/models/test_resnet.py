"""The brief's ResNet and its published variants: parameters, shapes, arithmetic, what each option changes."""

import math
from collections.abc import Sequence

import pytest
import torch
from stages import stage_shapes
from torch import Tensor, nn
from torch.nn import functional as F

from fastcifar.config import ResNetConfig
from fastcifar.models.resnet import Residual, ResNet

VARIANT_B = ResNetConfig(linear_bias=False, layer2_padding=0, layer3_pool=False)
STAGES = ("prep", "layer1", "layer2", "layer3", "linear")


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("config", "count", "shapes"),
    [
        (ResNetConfig(), 6_573_130, [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (10,)]),
        (VARIANT_B, 6_573_120, [(64, 32, 32), (128, 16, 16), (256, 7, 7), (512, 7, 7), (10,)]),
        (ResNetConfig(conv_bias=True), 6_574_090, [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (10,)]),
        (ResNetConfig(dropout=0.1), 6_573_130, [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (10,)]),
    ],
    ids=["A", "B", "C", "D"],
)
def test_published_variants(config: ResNetConfig, count: int, shapes: list[tuple[int, ...]]) -> None:
    model = ResNet(config)
    assert parameters(model) == count
    assert stage_shapes(model, STAGES, 32) == shapes


def test_forward_takes_758_5_mflop() -> None:
    flop = 0

    def count(module: nn.Module, inputs: Sequence[Tensor], output: Tensor) -> None:
        nonlocal flop
        weight = module.get_parameter("weight")
        flop += 2 * weight[0].numel() * output[0].numel()  # multiply-adds of an output value, times values

    model = ResNet().eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    model(torch.zeros(1, 3, 32, 32))
    assert round(flop / 1e5) / 10 == 758.5


@pytest.mark.parametrize("width", [1, 8, 96])
def test_width_scales_every_layer(width: int) -> None:
    assert [shape[0] for shape in stage_shapes(ResNet(ResNetConfig(width=width)), STAGES, 32)] == [
        width,
        2 * width,
        4 * width,
        8 * width,
        10,
    ]


def test_number_of_classes() -> None:
    assert ResNet(ResNetConfig(width=4), classes=7)(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_logits_are_scaled() -> None:
    model = ResNet(ResNetConfig(width=4, logit_scale=0.125)).eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        scaled = model(x)
        model.logit_scale = 1.0
        assert torch.equal(scaled * 8, model(x))


def test_pooling_comes_before_the_norm() -> None:
    """conv -> max-pool -> BN -> ReLU, as published; a negative scale in BN tells the order."""
    block = ResNet(ResNetConfig(width=2)).layer2.eval()
    with torch.no_grad():
        block.norm.weight.fill_(-1)
        block.norm.bias.fill_(3)
        x = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(1))
        expected = F.relu(block.norm(F.max_pool2d(block.conv(x), 2)))
        assert torch.equal(block(x), expected)


def pooled_positions(config: ResNetConfig, side: int) -> tuple[int, set[tuple[int, int]]]:
    """The side of layer 3's map, and the positions of it that the logits depend on."""
    model = ResNet(config).eval()

    def keep(module: nn.Module, inputs: Sequence[Tensor], output: Tensor) -> Tensor:
        # instead of layer 3's map, one map a position: 1 there, 0 elsewhere
        size = output.size(2)
        spread = torch.zeros(size * size, *output.shape[1:])
        for position in range(size * size):
            spread[position, :, position // size, position % size] = 1
        return spread

    model.layer3.register_forward_hook(keep)
    with torch.no_grad():
        logits = model(torch.zeros(1, 3, side, side))
        nothing = model.linear(torch.zeros(1, model.linear.in_features))
    size = math.isqrt(len(logits))
    seen = {(i // size, i % size) for i in range(len(logits)) if not torch.equal(logits[i], nothing[0])}
    return size, seen


@pytest.mark.parametrize("side", [16, 17, 20, 24, 31, 32])
@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize("pool", [True, False])
def test_last_pooling_is_max_pool_4(side: int, pad: int, pool: bool) -> None:
    """One window of 4x4, which on variant B's 7x7 map leaves the rest out; all of it where the map is smaller."""
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
