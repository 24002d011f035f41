"""The network of the speed recipes: whitening, identity initialisation, what learns."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastcifar.models.speednet import Block, SpeedNet, SpeedNetConfig
from fastcifar.rng import Purpose, generator

SMALL = SpeedNetConfig(widths=(16, 24, 20))


def random_images(count: int = 20, side: int = 12) -> torch.Tensor:
    """Noise with correlated neighbouring pixels and channels, as images have."""
    noise = torch.randn(count, 3, side + 2, side + 2, generator=torch.Generator().manual_seed(4))
    smooth = F.avg_pool2d(noise, 3, stride=1) * 3
    return smooth + 0.5 * smooth.roll(1, 1) + 0.2


@pytest.fixture
def model() -> SpeedNet:
    model = SpeedNet(SMALL)
    model.init_from_generator(generator(1, Purpose.INIT))
    return model


def all_patches(images: torch.Tensor) -> np.ndarray:
    """All 2x2 patches: float64 (patches, 12)."""
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
    patches = all_patches(images)
    values, vectors = np.linalg.eigh(sum(np.outer(patch, patch) for patch in patches) / len(patches))
    filters = model.stem.weight[:12].reshape(12, 12).double().numpy()
    order = np.argsort(values)[::-1]
    for found, value, vector in zip(filters, values[order], vectors.T[order], strict=True):
        expected = vector / np.sqrt(value + eps)
        sign = np.sign(found @ expected)  # the sign of an eigenvector is arbitrary
        np.testing.assert_allclose(found, sign * expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(model.stem.weight[:12], -model.stem.weight[12:])


def test_sums_of_chunks_keep_their_bits(model: SpeedNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded runs rest on them: products of 500 images in float32, summed in order in float64."""
    seen: list[torch.Tensor] = []
    eigh = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: seen.append(matrix.clone()) or eigh(matrix))
    images = random_images(1200, 6)
    model.whiten(images)
    expected = torch.zeros(12, 12, dtype=torch.float64)
    for chunk in (images[:500], images[500:1000], images[1000:]):
        patches = F.unfold(chunk, 2).transpose(1, 2).reshape(-1, 12)
        expected += patches.T @ patches
    assert torch.equal(seen[0], expected / (1200 * 25))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("of_model", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_images_for_whitening_may_be_on_any_device(model: SpeedNet, device: str, of_model: str) -> None:
    images = random_images()
    model.whiten(images)
    expected = model.stem.weight.clone()
    model.to(of_model).whiten(images.to(device))
    covariances = [w.flatten(1).T.cpu() @ w.flatten(1).cpu() for w in (model.stem.weight, expected)]  # signs may differ
    torch.testing.assert_close(*covariances, rtol=1e-3, atol=1e-3)


def test_whitened_patches_are_uncorrelated_with_unit_variance(model: SpeedNet) -> None:
    images = random_images()
    before = np.cov(all_patches(images), rowvar=False)
    assert abs(before - np.diag(np.diag(before))).max() > 0.3  # there is something to whiten
    model.whiten(images, eps=1e-9)
    outputs = F.conv2d(images, model.stem.weight).double()[:, :12].permute(0, 2, 3, 1).reshape(-1, 12)
    moment = outputs.T @ outputs / len(outputs)
    torch.testing.assert_close(moment, torch.eye(12, dtype=torch.float64), atol=1e-4, rtol=0)


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


def test_filters_without_identity_are_uniform() -> None:
    model = SpeedNet(replace(SMALL, identity=False))
    model.init_from_generator(generator(1, Purpose.INIT))
    convs = [module for module in model.blocks.modules() if isinstance(module, nn.Conv2d)]
    assert len(convs) == 6
    for conv in convs:
        bound = (conv.in_channels * 9) ** -0.5
        assert 0.9 * bound < conv.weight.abs().max() <= bound
        assert conv.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


@pytest.mark.parametrize("stem", ["whitening", "learned"])
def test_gradients_of_the_stem(stem: Any) -> None:
    model = SpeedNet(replace(SMALL, stem=stem, stem_epochs=4))
    model.init_from_generator(generator(1, Purpose.INIT))
    assert model.stem.bias is not None
    x = torch.randn(4, 3, 16, 16)
    for learns in (True, False, True):
        model.zero_grad()
        model.before_step(0 if learns else 4, 1)
        model(x).sum().backward()
        assert (model.stem.bias.grad is not None) is learns
        assert (model.stem.weight.grad is not None) is (stem == "learned")
        assert model.head.weight.grad is not None


def test_what_learns(model: SpeedNet) -> None:
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    expected = {"stem.bias", "head.weight"}
    for block in range(3):
        expected |= {f"blocks.{block}.{name}" for name in ("conv1.weight", "conv2.weight", "norm1.bias", "norm2.bias")}
    assert learning == expected
    assert model.head.weight.std().item() == pytest.approx(1, abs=1e-5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight))


def test_four_blocks_take_17_pixels() -> None:
    model = SpeedNet(SpeedNetConfig(widths=(8, 8, 8, 8)), classes=3).eval()
    assert model(torch.zeros(2, 3, 17, 17)).shape == (2, 3)


@pytest.mark.parametrize("activation", ["gelu", "relu", "silu"])
def test_activations(activation: Any) -> None:
    model = SpeedNet(SpeedNetConfig(widths=(8,), activation=activation))
    expected = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}[activation]
    seen: list[torch.Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    model(x)
    assert torch.equal(seen[0], expected(model.stem(x)))
