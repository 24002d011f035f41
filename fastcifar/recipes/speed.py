"""The project's own recipes; measured times and accuracies are in bench/REPORT.md."""

from dataclasses import replace
from typing import Any

from fastcifar.config import AugmentConfig, Config
from fastcifar.evaluation.selective_tta import SelectiveTta
from fastcifar.evaluation.single_view import SingleView
from fastcifar.models.resnet import ResNetConfig
from fastcifar.models.speednet import SpeedNetConfig
from fastcifar.optim.muon import MuonConfig
from fastcifar.optim.sgd import SgdConfig
from fastcifar.schedules.one_cycle import OneCycle


def resnet24() -> Config:
    """The reference ResNet in its reference setting, tuned; target 94%.

    The setting: batch 512, 24 epochs, one-cycle with its peak at epoch 5, padding 4 and crop, flip, cutout 8.
    """
    return Config(
        recipe="resnet24",
        epochs=24,
        batch_size=512,
        evaluate_every=1,
        model=ResNetConfig(logit_scale=0.125),  # allows a learning rate of 0.4; without it, at most 0.05 is stable
        optimizer=SgdConfig(lr=0.4, momentum=0.9, nesterov=True, weight_decay=5e-4),
        schedule=OneCycle(peak_epoch=5, start=0.01, end=0.01),
        augment=AugmentConfig(pad=4, flip="random", cutout=8),
    )


def cpu90() -> Config:
    """Target 90% on a CPU: a narrow SpeedNet that starts with images of 16 pixels, Muon, selective TTA."""
    return _speed(
        recipe="cpu90",
        epochs=4.5,
        batch_size=500,
        resolution=((0.4, 16), (0.6, 20), (0.75, 24), (1.0, 32)),
        model=SpeedNetConfig(widths=(64, 160, 192), logit_scale=1 / 192, stem_epochs=0.2),
    )


def cpu94() -> Config:
    """Target 94% on a CPU: airbench94 with 10 epochs, smaller images first and a stem bias that learns for 0.2."""
    return _speed(
        recipe="cpu94",
        epochs=10,
        batch_size=2000,
        resolution=((0.45, 24), (1.0, 32)),
        model=SpeedNetConfig(widths=(64, 256, 256), logit_scale=1 / 256, stem_epochs=0.2),
        optimizer=MuonConfig(weight_decay=0.004),
    )


def fast90() -> Config:
    """Target 90% on a GPU: `cpu90` with a larger batch and a wider network; not tuned on a GPU yet."""
    return _speed(
        recipe="fast90",
        epochs=5,
        batch_size=1000,
        resolution=((0.4, 16), (0.6, 20), (0.75, 24), (1.0, 32)),
        model=SpeedNetConfig(widths=(64, 256, 256), logit_scale=1 / 256),
    )


def fast94() -> Config:
    """Target 94% on a GPU: airbench94 with smaller images first; not tuned on a GPU yet."""
    return _speed(
        recipe="fast94",
        epochs=8,
        batch_size=2000,
        resolution=((0.4, 24), (0.7, 28), (1.0, 32)),
        model=SpeedNetConfig(widths=(64, 256, 256), logit_scale=1 / 256),
        optimizer=MuonConfig(weight_decay=0.004),
    )


def smoke() -> Config:
    """A check that everything works, in about a minute on any machine; its accuracy has no meaning."""
    return _speed(
        recipe="smoke",
        epochs=2,
        batch_size=250,
        resolution=((0.7, 16), (1.0, 32)),
        evaluation=SingleView(),
        evaluate_every=1,
        model=SpeedNetConfig(widths=(32, 64, 128), activation="relu", logit_scale=1 / 128),
    )


def _speed(**fields: Any) -> Config:
    """The shared defaults: Muon, linear decay from the peak to 0, label smoothing, alternating flips, selective TTA."""
    shared = Config(
        label_smoothing=0.2,
        evaluation=SelectiveTta(),
        optimizer=MuonConfig(),
        schedule=OneCycle(peak_epoch=0, start=1, end=0),
        augment=AugmentConfig(pad=2, pad_mode="reflect", flip="alternating", cutout=0),
    )
    return replace(shared, **fields)


SPEED = (resnet24, cpu90, cpu94, fast90, fast94, smoke)
