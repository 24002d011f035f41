"""A run's FLOPs against torch's own count of every step, forward and backward."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fastcifar.config import Config, ModelConfig
from fastcifar.models.build import outline
from fastcifar.models.ffcv_net import FfcvNetConfig
from fastcifar.models.hooks import before_step
from fastcifar.models.resnet import ResNetConfig
from fastcifar.models.resnet18 import ResNet18Config
from fastcifar.models.speednet import SpeedNetConfig
from fastcifar.runtime.device import select_runtime
from fastcifar.training.context import RunContext
from fastcifar.training.flops import training_flops
from fastcifar.training.steps import resolution


def step_by_step(context: RunContext) -> float:
    """What torch counts in each step, on the meta device."""
    model = outline(context.config.model, context.classes).train()
    flops = 0.0
    for step in range(context.total):
        before_step(model, step, context.steps_per_epoch)
        size = resolution(step, context.total, context.config.resolution)
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(context.config.batch_size, 3, size, size, device="meta")).sum().backward()
        flops += counter.get_total_flops()
    return flops


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        (ResNetConfig(width=3, conv_bias=True, dropout=0.2), {"epochs": 0.1}),
        (ResNetConfig(width=3, layer2_padding=0, layer3_pool=False), {"resolution": ((0.3, 16), (1.0, 32))}),
        (SpeedNetConfig(widths=(5, 7), stem_epochs=0.4), {"resolution": ((0.3, 16), (0.61, 20), (1.0, 32))}),
        (SpeedNetConfig(widths=(5, 7), stem_epochs=0), {"epochs": 0.2}),
        (SpeedNetConfig(widths=(5, 7), stem_epochs=99), {"epochs": 0.2}),
        (SpeedNetConfig(widths=(5, 7), stem_epochs=0.2, stem="learned"), {"epochs": 0.4}),
        (ResNet18Config(), {"epochs": 0.1}),
        (FfcvNetConfig(width=4), {"resolution": ((0.5, 17), (1.0, 32))}),
    ],
)
def test_equal_to_torch_s_count_of_every_step(tiny: Config, model: ModelConfig, changes: dict[str, Any]) -> None:
    config = replace(tiny, **{"model": model, "epochs": 1, "resolution": ((1.0, 32),), **changes})
    context = RunContext(config, select_runtime(config))
    state = torch.get_rng_state()
    assert training_flops(context) == step_by_step(context)
    assert torch.equal(torch.get_rng_state(), state)
