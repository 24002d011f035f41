"""Named, complete configurations. A published number has a recipe, and its record names it."""

from dataclasses import replace
from typing import Any

from fastcifar.config import AugmentConfig, Config, MuonConfig, ResNetConfig, ScheduleConfig, SgdConfig, SpeedNetConfig


def resnet24() -> Config:
    """The brief: its ResNet, batch 512, 24 epochs, one-cycle with the peak at epoch 5, crop, flip and cutout 8."""
    return Config(
        recipe="resnet24",
        epochs=24,
        batch_size=512,
        evaluate_every=1,
        model=ResNetConfig(logit_scale=0.125),  # with it 0.4 is stable; without, rates above 0.05 are not
        optimizer=SgdConfig(lr=0.4, momentum=0.9, nesterov=True, weight_decay=5e-4),
        schedule=ScheduleConfig(peak_epoch=5, start=0.01, end=0.01),
        augment=AugmentConfig(pad=4, flip="random", cutout=8),
    )


def cpu90() -> Config:
    """90% on a CPU: a narrow network that sees small images first, Muon, six views of the unsure images."""
    return _speed(
        recipe="cpu90",
        epochs=4.5,
        batch_size=500,
        resolution=((0.4, 16), (0.6, 20), (0.75, 24), (1.0, 32)),
        model=SpeedNetConfig(widths=(64, 160, 192), logit_scale=1 / 192, stem_epochs=0.2),
    )


def cpu94() -> Config:
    """94% on a CPU: airbench94 with two epochs more, smaller images first, a stem whose bias learns only briefly."""
    return _speed(
        recipe="cpu94",
        epochs=10,
        batch_size=2000,
        resolution=((0.45, 24), (1.0, 32)),
        model=SpeedNetConfig(widths=(64, 256, 256), logit_scale=1 / 256, stem_epochs=0.2),
        optimizer=MuonConfig(weight_decay=0.004),
    )


def fast90() -> Config:
    """90% on a GPU: the network of `cpu90` at the batch size and widths a GPU likes; not yet tuned on one."""
    return _speed(
        recipe="fast90",
        epochs=5,
        batch_size=1000,
        resolution=((0.4, 16), (0.6, 20), (0.75, 24), (1.0, 32)),
        model=SpeedNetConfig(widths=(64, 256, 256), logit_scale=1 / 256),
    )


def fast94() -> Config:
    """94% on a GPU: airbench94 with smaller images first; neither tuned nor measured on one yet."""
    return _speed(
        recipe="fast94",
        epochs=8,
        batch_size=2000,
        resolution=((0.4, 24), (0.7, 28), (1.0, 32)),
        model=SpeedNetConfig(widths=(64, 256, 256), logit_scale=1 / 256),
        optimizer=MuonConfig(weight_decay=0.004),
    )


def smoke() -> Config:
    """A minute on anything: shows that all parts work; its accuracy means nothing."""
    return _speed(
        recipe="smoke",
        epochs=2,
        batch_size=250,
        resolution=((0.7, 16), (1.0, 32)),
        evaluation="single_view",
        evaluate_every=1,
        model=SpeedNetConfig(widths=(32, 64, 128), activation="relu", logit_scale=1 / 128),
    )


def _speed(**fields: Any) -> Config:
    """What the speed recipes fraction: Muon from its peak to zero, label smoothing, alternating flips, six views."""
    shared = Config(
        label_smoothing=0.2,
        evaluation="selective_tta",
        optimizer=MuonConfig(),
        schedule=ScheduleConfig(peak_epoch=0, start=1, end=0),
        augment=AugmentConfig(pad=2, pad_mode="reflect", flip="alternating", cutout=0),
    )
    return replace(shared, **fields)


SPEED = (resnet24, cpu90, cpu94, fast90, fast94, smoke)
