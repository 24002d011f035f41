"""The speed recipes' network: whitening, identity initialisation, what learns, any side."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastcifar.config import SpeedNetConfig
from fastcifar.models.speednet import Block, SpeedNet
from fastcifar.rng import Purpose, generator

SMALL = SpeedNetConfig(widths=(16, 24, 20))


def random_images(count: int = 60, side: int = 12) -> torch.Tensor:
    """Noise whose neighbouring pixels and channels are correlated, as those of images are."""
    noise = torch.randn(count, 3, side + 2, side + 2, generator=torch.Generator().manual_seed(4))
    smooth = F.avg_pool2d(noise, 3, stride=1) * 3
    return smooth + 0.5 * smooth.roll(1, 1) + 0.2


@pytest.fixture
def model() -> SpeedNet:
    model = SpeedNet(SMALL)
    model.reset(generator(1, Purpose.INIT))
    return model


def all_patches(images: torch.Tensor) -> np.ndarray:
    """Every 2x2 patch, one after the other: float64 (patches, 12)."""
    values = images.double().numpy()
    side = values.shape[2]
    return np.stack(
        [
            image[:, y : y + 2, x : x + 2].reshape(-1)
            for image, y, x in itertools.product(values, range(side - 1), range(side - 1))
        ]
    )


def test_whitening_equals_a_patch_by_patch_reference(model: SpeedNet) -> None:
    images, eps = random_images(), 5e-4
    model.whiten(images, eps)
    second_moment = sum(np.outer(patch, patch) for patch in all_patches(images)) / len(all_patches(images))
    values, vectors = np.linalg.eigh(second_moment)
    filters = model.stem.weight[:12].reshape(12, 12).double().numpy()
    order = np.argsort(values)[::-1]
    for found, value, vector in zip(filters, values[order], vectors.T[order], strict=True):
        expected = vector / np.sqrt(value + eps)
        sign = np.sign(found @ expected)  # an eigenvector has no sign of its own
        np.testing.assert_allclose(found, sign * expected, rtol=1e-4, atol=1e-5)


def test_whitened_patches_are_uncorrelated_with_unit_variance(model: SpeedNet) -> None:
    images = random_images()
    before = np.cov(all_patches(images), rowvar=False)
    assert abs(before - np.diag(np.diag(before))).max() > 0.3  # there is something to whiten
    model.whiten(images, eps=1e-9)
    outputs = F.conv2d(images, model.stem.weight).double()[:, :12].permute(0, 2, 3, 1).reshape(-1, 12)
    moment = outputs.T @ outputs / len(outputs)
    torch.testing.assert_close(moment, torch.eye(12, dtype=torch.float64), atol=1e-4, rtol=0)


def test_stem_is_filters_and_their_negatives(model: SpeedNet) -> None:
    model.whiten(random_images())
    weight = model.stem.weight
    assert weight.shape == (24, 3, 2, 2)
    assert torch.equal(weight[:12], -weight[12:])
    assert not weight.requires_grad


def test_filters_start_as_the_identity_on_shared_channels(model: SpeedNet) -> None:
    for block, channels in zip(model.blocks, (24, 16, 24), strict=True):
        assert isinstance(block, Block)
        for conv, inputs in ((block.conv1, channels), (block.conv2, block.conv2.out_channels)):
            shared = min(conv.out_channels, inputs)
            dirac = torch.zeros(shared, shared, 3, 3)
            dirac[range(shared), range(shared), 1, 1] = 1
            assert torch.equal(conv.weight[:shared, :shared], dirac)
            bound = (inputs * 9) ** -0.5
            rest = torch.cat((conv.weight[shared:].flatten(), conv.weight[:shared, shared:].flatten()))
            if len(rest):
                assert 0.9 * bound < rest.abs().max() <= bound
    first = model.blocks[0]
    assert isinstance(first, Block)
    x = torch.randn(1, 16, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(first.conv2(x), x)


def test_filters_may_all_be_drawn() -> None:
    model = SpeedNet(replace(SMALL, identity=False))
    model.reset(generator(1, Purpose.INIT))
    for block in model.blocks:
        assert isinstance(block, Block)
        for conv in (block.conv1, block.conv2):
            bound = (conv.in_channels * 9) ** -0.5
            assert 0.9 * bound < conv.weight.abs().max() <= bound
            assert conv.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


def test_filters_of_a_learned_stem_are_drawn_and_learn_to_the_end() -> None:
    stems = []
    for _ in range(2):
        model = SpeedNet(replace(SMALL, stem="learned"))
        model.reset(generator(1, Purpose.INIT))
        stems.append(model.stem.weight.detach().clone())
    assert torch.equal(*stems)
    assert stems[0].abs().max() <= 12**-0.5
    for learns in (True, False):
        model.zero_grad()
        model.stem_learns(learns)
        model(torch.randn(4, 3, 16, 16)).sum().backward()
        assert model.stem.weight.grad is not None
        assert model.stem.bias is not None
        assert (model.stem.bias.grad is not None) is learns


def test_head_has_unit_deviation(model: SpeedNet) -> None:
    assert model.head.weight.std().item() == pytest.approx(1, abs=1e-5)
    assert model.head.bias is None


def test_what_learns(model: SpeedNet) -> None:
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    expected = {"stem.bias", "head.weight"}
    for block in range(3):
        expected |= {f"blocks.{block}.{name}" for name in ("conv1.weight", "conv2.weight", "norm1.bias", "norm2.bias")}
    assert learning == expected
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert not module.weight.requires_grad


def test_stem_learns_only_while_told_to(model: SpeedNet) -> None:
    assert model.stem.bias is not None
    x = torch.randn(4, 3, 16, 16)
    for learns in (True, False, True):
        model.zero_grad()
        model.stem_learns(learns)
        model(x).sum().backward()
        assert (model.stem.bias.grad is not None) is learns
        assert model.stem.weight.grad is None
        assert model.head.weight.grad is not None


@pytest.mark.parametrize("side", range(16, 33))
def test_any_side(model: SpeedNet, side: int) -> None:
    assert model.eval()(torch.zeros(2, 3, side, side)).shape == (2, 10)


@pytest.mark.parametrize("widths", [(8,), (8, 8), (8, 8, 8, 8)])
def test_one_to_four_blocks(widths: tuple[int, ...]) -> None:
    model = SpeedNet(SpeedNetConfig(widths=widths), classes=3).eval()
    assert len(model.blocks) == len(widths)
    assert model(torch.zeros(2, 3, 17, 17)).shape == (2, 3)


def test_logits_are_scaled(model: SpeedNet) -> None:
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    model.eval()
    with torch.no_grad():
        scaled = model(x)
        model.logit_scale = 1.0
        torch.testing.assert_close(scaled * 256, model(x))  # the default is one over the last block's channels


@pytest.mark.parametrize("activation", ["gelu", "relu", "silu"])
def test_activations(activation: str) -> None:
    model = SpeedNet(SpeedNetConfig(widths=(8,), activation=activation))  # type: ignore[arg-type]
    expected = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}[activation]
    seen: list[torch.Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    model(x)
    assert torch.equal(seen[0], expected(model.stem(x)))
