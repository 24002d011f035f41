"""Grad-CAM: finds planted evidence, equals captum's, and leaves the network unchanged."""

from typing import Any

import pytest
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from fastcifar.analysis.grad_cam import GradCam, choose_layer, evaluating, grad_cam
from fastcifar.errors import UserError
from fastcifar.models.build import build_model, outline
from fastcifar.models.resnet import ResNetConfig
from fastcifar.models.resnet18 import ResNet18Config
from fastcifar.models.speednet import SpeedNetConfig

CONFIGS: dict[str, Any] = {
    "resnet": ResNetConfig(width=8, dropout=0.2),
    "resnet, last feature map 7x7": ResNetConfig(width=8, layer2_padding=0, layer3_pool=False),
    "speed": SpeedNetConfig(widths=(16, 24, 32)),
}


class Planted(nn.Module):
    """The logit of class k is the brightness of colour k, so its evidence is where that colour is."""

    def __init__(self) -> None:
        super().__init__()
        brightness = nn.Conv2d(3, 3, 4, stride=4, bias=False)
        with torch.no_grad():
            brightness.weight.copy_((torch.eye(3) / 16)[..., None, None].expand(3, 3, 4, 4))
        self.features = nn.Sequential(brightness, nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).mean((2, 3))


def network(name: str) -> nn.Module:
    if name == "torchvision":  # a block that works in place and runs its ReLU twice
        block = [nn.Conv2d(3, 8, 3, padding=1), BasicBlock(8, 8)]
        return nn.Sequential(*block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    return build_model(CONFIGS[name], 10, seed=1)


def random_images(count: int, side: int = 32) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_heat_lies_where_the_evidence_was_planted() -> None:
    images = torch.zeros(4, 3, 32, 32)
    quadrants = [(0, 0), (0, 16), (16, 0), (16, 16)]
    for image, (top, left) in zip(images, quadrants, strict=True):
        image[1, top : top + 16, left : left + 16] = 1  # the class asked for
        image[2, 16 - top : 32 - top, 16 - left : 32 - left] = 3  # and, opposite, more evidence of another one
    cam = grad_cam(Planted(), images, torch.full((4,), 1))
    assert (cam.layer, cam.padding, tuple(cam.heat.shape)) == ("features", 0, (4, 8, 8))
    upsampled = cam.upsampled(32)
    for heat, fine, (top, left) in zip(cam.heat, upsampled, quadrants, strict=True):
        inside = torch.zeros(8, 8, dtype=torch.bool)
        inside[top // 4 : top // 4 + 4, left // 4 : left // 4 + 4] = True
        torch.testing.assert_close(heat[inside], torch.full((16,), 1 / 64))  # alpha = 1 / 64 positions, A = 1
        assert (heat[~inside] == 0).all()
        assert fine[top : top + 16, left : left + 16].sum() > 0.75 * fine.sum()
    relative = cam.relative(32)
    assert relative.amax((1, 2)).tolist() == [1, 1, 1, 1]
    black = grad_cam(Planted(), torch.zeros(2, 3, 32, 32), torch.tensor([0, 1]))
    assert (black.relative(32) == 0).all()


@pytest.mark.parametrize(
    ("name", "layer", "padding", "side"),
    [
        ("resnet", "layer2", 0, 8),
        ("resnet, last feature map 7x7", "layer1", 0, 16),
        ("speed", "blocks.1", 1, 8),
        ("torchvision", "1", 0, 32),
        ("speed", "blocks.1.conv1", None, 15),
    ],
)
def test_heat_equals_captum_s(name: str, layer: str, padding: int | None, side: int) -> None:
    """At the layer that is chosen, or at `layer` where `padding` is None."""
    model = network(name)
    images, classes = random_images(3), torch.tensor([0, 7, 7])
    if padding is not None:
        assert choose_layer(model) == (layer, padding)
    cam = grad_cam(model, images, classes, layer if padding is None else None, batch_size=2)
    padding = padding or 0
    assert (cam.layer, cam.padding, tuple(cam.heat.shape)) == (layer, padding, (3, side, side))
    padded = nn.functional.pad(images, (0, padding, 0, padding), "reflect")
    oracle = LayerGradCam(model.eval(), model.get_submodule(layer))
    expected = oracle.attribute(padded, classes, relu_attributions=True)
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(cam.heat, expected[:, 0].detach(), rtol=1e-4, atol=1e-7)
    assert (cam.heat > 0).any()


@pytest.mark.parametrize("name", ["resnet", "speed"])
def test_the_network_is_left_unchanged(name: str) -> None:
    model = network(name).train()
    some = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    some.eval()  # a mixture of modes, as in fine-tuning
    some.weight.requires_grad_(False)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    learns = [parameter.requires_grad for parameter in model.parameters()]
    with torch.no_grad():
        first = grad_cam(model, random_images(2), torch.tensor([1, 2])).heat
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == learns
    assert all((parameter.grad == 1).all() for parameter in model.parameters() if parameter.grad is not None)
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    assert torch.equal(first, grad_cam(model, random_images(2), torch.tensor([1, 2])).heat)


def test_frozen_networks_and_inference_mode() -> None:
    model = network("resnet")
    expected = grad_cam(model, random_images(2), torch.tensor([1, 2])).heat
    model.requires_grad_(False)
    with torch.inference_mode():
        cam = grad_cam(model, random_images(2).clone(), torch.tensor([1, 2]))
    assert torch.equal(cam.heat, expected)


def test_modes_and_hooks_after_an_error() -> None:
    model = network("resnet").train()
    with pytest.raises(RuntimeError):
        grad_cam(model, random_images(1)[:, :2], torch.tensor([1]), "layer2")
    with pytest.raises(ZeroDivisionError), evaluating(model):
        _ = 1 / model.training  # evaluation mode is False
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_no_images() -> None:
    cam = grad_cam(network("resnet"), random_images(0), torch.empty(0, dtype=torch.int64))
    assert cam.heat.shape[0] == 0
    assert cam.relative(32).shape == (0, 32, 32)


def test_padding_is_cropped() -> None:
    heat = torch.zeros(1, 8, 8)
    heat[0, 7, 7] = 1
    cam = GradCam("layer", heat, padding=1)
    whole = GradCam("layer", heat).upsampled(33)
    assert torch.equal(cam.upsampled(32), whole[:, :32, :32])


def test_invalid_arguments() -> None:
    resnet, shared = network("resnet"), nn.ReLU()
    twice = nn.Sequential(nn.Conv2d(3, 4, 3), shared, nn.Conv2d(4, 4, 3), shared, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for model, classes, layer, text in (
        (resnet, [1], "linear", "layer linear .* feature maps"),
        (resnet, [1], "layer9", "'layer9': .* choose one of prep, prep.conv, prep.norm, layer1, "),
        (resnet, [1, 2], None, r"\(1, 3, 32, 32\) .* \(2,\)"),
        (resnet, [10], None, "10 to 10, .* 10$"),
        (twice, [1], "1", "layer 1 runs 2 times"),
    ):
        with pytest.raises(UserError, match=text):
            grad_cam(model, random_images(1), torch.tensor(classes), layer)
    small = nn.Sequential(nn.Conv2d(3, 4, 31), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(UserError, match=r"8x8 .* 31"):
        choose_layer(small, 31)


def test_layer_of_resnet18() -> None:
    assert choose_layer(outline(ResNet18Config(), 10)) == ("layer3", 0)


def test_single_convolutions_without_blocks() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1))
    assert choose_layer(nn.Sequential(*plain, nn.Flatten())) == ("2", 0)
