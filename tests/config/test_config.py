"""Configurations refuse what cannot be trained with, and say which value and what is allowed."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest

from fastcifar.config import (
    AdamConfig,
    AugmentConfig,
    Config,
    FfcvNetConfig,
    MuonConfig,
    ResNet18Config,
    ResNetConfig,
    ScheduleConfig,
    SgdConfig,
    SpeedNetConfig,
)
from fastcifar.errors import UserError
from fastcifar.recipes import RECIPES

KINDS = [
    AdamConfig,
    AugmentConfig,
    Config,
    MuonConfig,
    FfcvNetConfig,
    ResNet18Config,
    ResNetConfig,
    ScheduleConfig,
    SgdConfig,
    SpeedNetConfig,
]


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: AugmentConfig(pad=17), "augment.pad is 17, but must be between 0 and 16 pixels"),
        (lambda: AugmentConfig(cutout=-1), "augment.cutout is -1, but must be between 0 and 32 pixels"),
        (lambda: ResNetConfig(width=0), "model.width is 0, but must be between 1 and 1024 channels"),
        (lambda: ResNetConfig(dropout=1.0), "model.dropout is 1.0, but must be at least 0 and below 1"),
        (lambda: FfcvNetConfig(width=0), "model.width is 0, but must be between 1 and 1024 channels"),
        (lambda: FfcvNetConfig(logit_scale=0), "model.logit_scale is 0, but must be above 0"),
        (lambda: SpeedNetConfig(widths=()), "model.widths is (), but must be 1 to 4 positive channel counts"),
        (lambda: SpeedNetConfig(widths=(8, 0)), "model.widths is (8, 0), but must be 1 to 4 positive channel counts"),
        (lambda: SpeedNetConfig(bn_momentum=0), "model.bn_momentum is 0, but must be in (0, 1]"),
        (lambda: ResNetConfig(logit_scale=-1), "model.logit_scale is -1, but must be above 0"),
        (lambda: SpeedNetConfig(logit_scale=0), "model.logit_scale is 0, but must be above 0"),
        (lambda: SpeedNetConfig(stem_epochs=-1), "model.stem_epochs is -1, but must not be negative"),
        (lambda: SgdConfig(lr=0), "optimizer.lr is 0, but must be above 0 and at most 1e+09"),
        (lambda: SgdConfig(lr=1e10), "optimizer.lr is 10000000000.0, but must be above 0 and at most 1e+09"),
        (lambda: SgdConfig(momentum=1), "optimizer.momentum is 1, but must be at least 0 and below 1"),
        (lambda: SgdConfig(weight_decay=-1), "optimizer.weight_decay is -1, but must not be negative"),
        (lambda: AdamConfig(lr=0), "optimizer.lr is 0, but must be above 0 and at most 1e+09"),
        (lambda: AdamConfig(beta1=1), "optimizer.beta1 is 1, but must be at least 0 and below 1"),
        (lambda: AdamConfig(beta2=-0.1), "optimizer.beta2 is -0.1, but must be at least 0 and below 1"),
        (lambda: AdamConfig(eps=0), "optimizer.eps is 0, but must be above 0"),
        (lambda: AdamConfig(weight_decay=-1), "optimizer.weight_decay is -1, but must not be negative"),
        (lambda: MuonConfig(head_lr=-2), "optimizer.head_lr is -2, but must be above 0 and at most 1e+09"),
        (lambda: MuonConfig(sgd_momentum=1), "optimizer.sgd_momentum is 1, but must be at least 0 and below 1"),
        (lambda: MuonConfig(steps=-1), "optimizer.steps is -1, but must be between 0 and 20"),
        (lambda: ScheduleConfig(peak_epoch=-1), "schedule.peak_epoch is -1, but must not be negative"),
        (lambda: ScheduleConfig(start=2), "schedule.start is 2, but must be a fraction between 0 and 1"),
        (lambda: Config(seed=-1), "seed is -1, but must be between 0 and 2**63 - 1"),
        (lambda: Config(seed=2**63), "seed is 9223372036854775808, but must be between 0 and 2**63 - 1"),
        (lambda: Config(epochs=0), "epochs is 0, but must be above 0 and at most a million"),
        (lambda: Config(epochs=1e300), "epochs is 1e+300, but must be above 0 and at most a million"),
        (lambda: Config(batch_size=0), "batch_size is 0, but must be at least 1"),
        (lambda: Config(evaluation_batch_size=0), "evaluation_batch_size is 0, but must be at least 1"),
        (lambda: Config(label_smoothing=1), "label_smoothing is 1, but must be at least 0 and below 1"),
        (lambda: Config(evaluate_every=-1), "evaluate_every is -1, but must not be negative"),
        (lambda: Config(threads=0), "threads is 0, but must be 1 to 1024"),
        (lambda: Config(epochs=3), "schedule.peak_epoch is 5, but the run ends at epoch 3; lower it"),
        (lambda: Config(resolution=()), "resolution is (), but its fractions must ascend to 1"),
        (lambda: Config(resolution=((0.5, 32),)), "resolution is ((0.5, 32),), but its fractions must ascend to 1"),
        (
            lambda: Config(resolution=((1.0, 33),)),
            "resolution is ((1.0, 33),), but its sides must be between 16 and 32 pixels",
        ),
        (
            lambda: Config(model=SpeedNetConfig(widths=(8, 8, 8, 8)), resolution=((0.5, 16), (1.0, 32))),
            "resolution goes down to 16 pixels, too few for the 4 blocks of model.widths",
        ),
    ],
)
def test_refused_values(build: Callable[[], Any], text: str) -> None:
    with pytest.raises(UserError) as caught:
        build()
    assert str(caught.value) == text


@pytest.mark.parametrize(
    "fractions", [(0.6, 0.4, 1.0), (0.4, 0.4, 1.0), (0.0, 1.0), (-0.5, 1.0), (0.5, 2.0), (math.nan, 1.0)]
)
def test_fractions_must_ascend(fractions: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="but its fractions must ascend to 1"):
        Config(resolution=tuple((fraction, 32) for fraction in fractions))


FLOATS = [(kind, item.name) for kind in KINDS for item in dataclasses.fields(kind) if isinstance(item.default, float)]


@pytest.mark.parametrize(("kind", "name"), FLOATS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_field_takes_nan_or_infinity(kind: Callable[..., Any], name: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"{name} is {value}, but must be a finite number"):
        kind(**{name: value})


def test_smallest_images_of_four_blocks() -> None:
    assert Config(model=SpeedNetConfig(widths=(8, 8, 8, 8)), resolution=((1.0, 17),))


@pytest.mark.parametrize("kind", KINDS)
def test_configurations_are_frozen_keyword_only_and_documented(kind: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(kind(), dataclasses.fields(kind)[0].name, None)
    with pytest.raises(TypeError):
        kind(1)
    assert not hasattr(kind(), "__dict__")


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_name_and_describe_themselves(name: str) -> None:
    assert RECIPES[name]().recipe == name
    assert (RECIPES[name].__doc__ or "").strip().endswith(".")


def test_the_brief_s_recipe() -> None:
    config = RECIPES["resnet24"]()
    assert (config.epochs, config.batch_size, config.schedule.peak_epoch) == (24, 512, 5)
    assert config.schedule.start == config.schedule.end  # no annihilation
    assert config.augment == AugmentConfig(pad=4, pad_mode="zero", flip="random", cutout=8)
    assert config.model == ResNetConfig(logit_scale=0.125)
