"""The memory order of every feature map: one operation that changes it would cost two copies a step."""

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastcifar.config import ModelConfig
from fastcifar.models.build import build_model, cast_weights
from fastcifar.models.ffcv_net import FfcvNetConfig
from fastcifar.models.resnet import ResNetConfig
from fastcifar.models.resnet18 import ResNet18Config
from fastcifar.models.speednet import SpeedNetConfig

CONFIGS = [
    SpeedNetConfig(widths=(16, 24, 32)),
    ResNetConfig(width=8, conv_bias=True, dropout=0.1),
    FfcvNetConfig(width=8),
    ResNet18Config(),
    ResNet18Config(small_stem=False),
]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("precision", ["float32", "autocast", "weights"])
@pytest.mark.parametrize("config", CONFIGS)
def test_feature_maps_and_gradients_of_filters_are_channels_last(
    config: ModelConfig, precision: str, device: str
) -> None:
    model = build_model(config, 10, 0).train().to(device)
    if precision == "weights":
        cast_weights(model, torch.bfloat16)
    seen: list[str] = []

    def check(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            assert is_channels_last(output), name
            seen.append(name)

    for name, module in model.named_modules():
        module.register_forward_hook(lambda _module, _given, output, name=name: check(name, output))
    images = torch.randn(2, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    autocast = torch.autocast(device, dtype=torch.bfloat16) if precision != "float32" else contextlib.nullcontext()
    with autocast:
        logits = model(images)
    logits.float().square().sum().backward()
    convolutions = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    assert convolutions.keys() <= set(seen)
    for name, convolution in convolutions.items():
        assert is_channels_last(convolution.weight), name
        gradient = convolution.weight.grad
        assert gradient is None or is_channels_last(gradient), name


def is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)
