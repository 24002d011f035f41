"""Configurations refuse values out of range, naming the field and the value."""

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest

from fastcifar.augment.ops.jitter import Jitter
from fastcifar.config import AugmentConfig, Config
from fastcifar.config.registry import REGISTRIES
from fastcifar.errors import UserError
from fastcifar.evaluation import evaluations_of, title_of
from fastcifar.evaluation.selective_tta import SelectiveTta
from fastcifar.models.ffcv_net import FfcvNetConfig
from fastcifar.models.resnet import ResNetConfig
from fastcifar.models.speednet import SpeedNetConfig
from fastcifar.optim.adam import AdamConfig
from fastcifar.optim.muon import MuonConfig
from fastcifar.optim.sgd import SgdConfig
from fastcifar.recipes import RECIPES
from fastcifar.schedules.one_cycle import OneCycle
from fastcifar.schedules.step_decay import StepDecay

COMPONENTS = [registry[name] for registry in REGISTRIES.values() for name in registry.names()]
KINDS = [Config, AugmentConfig, *COMPONENTS]
REFUSED: dict[Any, list[tuple[str, Any]]] = {
    AugmentConfig: [("pad", 17), ("pad", -1), ("cutout", -1), ("cutout", 33)],
    ResNetConfig: [("width", 0), ("width", 1025), ("dropout", 1.0), ("logit_scale", -1)],
    FfcvNetConfig: [("width", 0), ("logit_scale", 0)],
    SpeedNetConfig: [
        ("widths", ()), ("widths", (8, 0)), ("widths", (8,) * 5), ("bn_momentum", 0), ("logit_scale", 0),
        ("stem_epochs", -1),
    ],
    SgdConfig: [("lr", 0), ("lr", 1e10), ("momentum", 1), ("weight_decay", -1)],
    AdamConfig: [("lr", 0), ("beta1", 1), ("beta2", -0.1), ("eps", 0), ("weight_decay", -1)],
    MuonConfig: [
        ("lr", 0), ("bias_lr", 0), ("head_lr", -2), ("momentum", -1), ("sgd_momentum", 1), ("steps", -1), ("steps", 21),
        ("weight_decay", -1),
    ],
    OneCycle: [("peak_epoch", -1), ("start", 2), ("end", -0.5)],
    StepDecay: [("drop_epoch", -1), ("factor", 2)],
    SelectiveTta: [("one_in", 0)],
    Jitter: [("brightness", -1), ("contrast", 2)],
    Config: [
        ("seed", -1), ("seed", 2**63), ("epochs", 0), ("epochs", 1e300), ("batch_size", 0),
        ("evaluation_batch_size", 0), ("label_smoothing", 1), ("evaluate_every", -1), ("threads", 0), ("threads", 1025),
        ("checkpoint_keep", 0), ("checkpoint_every", "1m"), ("data", "a\0b"), ("resolution", ()),
        ("resolution", ((0.5, 32),)), ("resolution", ((1.0, 33),)), ("resolution", ((1.0, 15),)),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name", "value"), [(kind, *field) for kind, fields in REFUSED.items() for field in fields]
)
def test_a_value_out_of_range_is_refused(kind: Any, name: str, value: Any) -> None:
    shown = repr(value) if isinstance(value, str) else str(value)
    with pytest.raises(UserError, match=rf"\b{name}\b.*{re.escape(shown)}"):
        kind(**{name: value})


FLOATS = [(kind, item.name) for kind in KINDS for item in dataclasses.fields(kind) if isinstance(item.default, float)]


@pytest.mark.parametrize(("kind", "name"), FLOATS)
def test_no_field_takes_nan_or_infinity(kind: Any, name: str) -> None:
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(UserError, match=rf"\b{name} is {value}\b"):
            kind(**{name: value})


@pytest.mark.parametrize(
    "ends", [(0.6, 0.4, 1.0), (0.4, 0.4, 1.0), (0.0, 1.0), (-0.5, 1.0), (0.5, 2.0), (math.nan, 1.0)]
)
def test_the_ends_of_resolutions_ascend_to_1(ends: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="resolution"):
        Config(resolution=tuple((end, 32) for end in ends))


def test_fields_that_do_not_fit_one_another() -> None:
    with pytest.raises(UserError, match=r"schedule.peak_epoch is 5\b.*\b3\b"):
        Config(epochs=3)
    four_blocks = SpeedNetConfig(widths=(8, 8, 8, 8))
    with pytest.raises(UserError, match=r"resolution.*\b16\b.*model.*\b17\b"):
        Config(model=four_blocks, resolution=((0.5, 16), (1.0, 32)))
    assert Config(model=four_blocks, resolution=((1.0, 17),))


@pytest.mark.parametrize("kind", KINDS)
def test_configurations_are_frozen_and_keyword_only(kind: Any) -> None:
    for item in dataclasses.fields(kind):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(kind(), item.name, None)
    with pytest.raises(TypeError):
        kind(1)
    assert not hasattr(kind(), "__dict__")


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_name_and_describe_themselves(name: str) -> None:
    assert RECIPES[name]().recipe == name
    assert (RECIPES[name].__doc__ or "").strip().endswith(".")


@pytest.mark.parametrize(
    ("primary", "second"),
    [
        ("single_view", "flip_tta"),
        ("flip_tta", "flip_tta"),
        ("selective_tta", "selective_tta"),
    ],
)
def test_a_run_has_a_single_view_and_a_tta(primary: str, second: str) -> None:
    assert evaluations_of(primary) == {kind: title_of(kind) for kind in ("single_view", second)}


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"device": "gpu"}, "device is 'gpu'.*cuda"),
        ({"epochs": "3"}, "epochs is '3'"),
        ({"batch_size": 100.0}, r"batch_size is 100\.0"),
        ({"seed": True}, "seed is True"),
        ({"amp": "fp16"}, "amp is 'fp16'"),
        ({"augment": None}, "augment is None"),
        ({"augment": AugmentConfig(flip="yes")}, r"augment\.flip is 'yes'"),  # type: ignore[arg-type]
        ({"model": ResNetConfig}, "model is .*ResNetConfig"),
        ({"model": ResNetConfig(conv_bias=1)}, r"model\.conv_bias is 1"),  # type: ignore[arg-type]
        ({"optimizer": "adma"}, "did you mean 'adam'"),
        ({"resolution": ((1.0, "32"),)}, "resolution is"),
    ],
)
def test_values_of_another_type(fields: dict[str, Any], shown: str) -> None:
    with pytest.raises(UserError, match=shown):
        Config(**fields)


def test_names_and_texts_stand_for_components_and_paths() -> None:
    config = Config(model="ffcv", optimizer="adam", evaluation="flip_tta", data="a/b", runs="c")  # type: ignore[arg-type]
    assert (config.model, config.optimizer) == (FfcvNetConfig(), AdamConfig())
    assert (config.data, config.runs) == (Path("a/b"), Path("c"))
    listed: Any = [[0.5, 16], [1.0, 32]]
    assert Config(resolution=listed).resolution == ((0.5, 16), (1.0, 32))
    assert config == Config(**{item.name: getattr(config, item.name) for item in dataclasses.fields(config)})
