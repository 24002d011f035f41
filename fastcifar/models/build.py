"""From a model's configuration to its module, weights drawn from the run's seed."""

import torch
from torch import nn

from fastcifar.augment.draws import Purpose
from fastcifar.config import ResNetConfig, SpeedNetConfig
from fastcifar.models.resnet import ResNet
from fastcifar.models.speed import SpeedNet
from fastcifar.seeding import generator, seeded


def build_model(config: ResNetConfig | SpeedNetConfig, classes: int, seed: int) -> nn.Module:
    """The network in channels_last float32 on the CPU; the same seed gives the same weights, bit for bit."""
    with seeded(seed, Purpose.INIT):
        if isinstance(config, SpeedNetConfig):
            model = SpeedNet(config, classes)
            model.reset(generator(seed, Purpose.INIT))
        else:
            model = ResNet(config, classes)
    return model.to(memory_format=torch.channels_last)
