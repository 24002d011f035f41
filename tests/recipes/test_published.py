"""The five published systems: every value that they publish, and networks with exactly their parameters and shapes."""

from dataclasses import asdict
from typing import Any

import pytest

from fastcifar.config import AdamConfig, AugmentConfig, Config, ResNet18Config, ResNetConfig, SgdConfig
from fastcifar.models.build import outline
from fastcifar.optim.schedules import one_cycle
from fastcifar.recipes import RECIPES
from fastcifar.recipes.published import SYSTEMS


def rates(config: Config, steps_per_epoch: int) -> list[float]:
    total = round(config.epochs * steps_per_epoch)
    peak = config.schedule.peak_epoch / config.epochs
    return [config.optimizer.lr * one_cycle(step, total, peak, config.schedule) for step in range(total)]


def test_they_are_recipes() -> None:
    assert [system.__name__ for system in SYSTEMS] == [f"system_{letter}" for letter in "abcde"]
    assert all(RECIPES[system.__name__] is system for system in SYSTEMS)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("system_a", 6_573_130),
        ("system_b", 6_573_120),
        ("system_c", 6_574_090),
        ("system_d", 6_573_130),
        ("system_e", 11_173_962),
    ],
)
def test_parameters(name: str, count: int) -> None:
    assert sum(p.numel() for p in outline(RECIPES[name]().model, 10).parameters()) == count


@pytest.mark.parametrize("name", ["system_a", "system_b", "system_c", "system_d", "system_e"])
def test_what_the_brief_asks_of_all(name: str) -> None:
    config = RECIPES[name]()
    assert config.augment == AugmentConfig(pad=4, pad_mode="zero", flip="random", cutout=8)
    assert (config.evaluation, config.label_smoothing, config.resolution) == ("single_view", 0.0, ((1.0, 32),))
    assert config.evaluate_every == 1  # they publish curves, and an accuracy after the first epoch


@pytest.mark.parametrize(
    ("name", "epochs", "batch", "model", "optimizer"),
    [
        ("system_a", 24, 512, {}, SgdConfig(lr=0.02, momentum=0.9)),
        (
            "system_b", 24, 128, {"linear_bias": False, "layer2_padding": 0, "layer3_pool": False},
            SgdConfig(lr=0.0705, momentum=0.9),
        ),
        ("system_c", 24, 512, {"conv_bias": True}, SgdConfig(lr=0.2, momentum=0.9)),
        ("system_d", 24, 512, {"dropout": 0.05}, AdamConfig(lr=0.005)),
    ],
)  # fmt: skip
def test_the_brief_s_network_and_its_variants(name: str, epochs: int, batch: int, model: Any, optimizer: Any) -> None:
    config = RECIPES[name]()
    assert (config.epochs, config.batch_size, config.optimizer) == (epochs, batch, optimizer)
    assert config.model == ResNetConfig(**{**asdict(ResNetConfig()), **model})


def test_system_e() -> None:
    config = RECIPES["system_e"]()
    assert (config.epochs, config.batch_size, config.model) == (50, 64, ResNet18Config())
    assert isinstance(config.optimizer, SgdConfig)


@pytest.mark.parametrize(
    ("name", "steps", "first", "highest", "at_epoch"),
    [
        ("system_a", 97, 0.002, 0.02, 5),
        ("system_b", 390, 0.0705 / 8, 0.0705, 5),
        ("system_c", 97, 0.02, 0.2, 6),
        ("system_d", 97, 0.0005, 0.005, 5),
    ],
)
def test_one_cycle_without_annihilation(name: str, steps: int, first: float, highest: float, at_epoch: int) -> None:
    planned = rates(RECIPES[name](), steps)
    assert len(planned) == 24 * steps
    assert planned[0] == pytest.approx(first)
    assert planned[-1] == pytest.approx(first)
    assert max(planned) == pytest.approx(highest)
    assert planned.index(max(planned)) == at_epoch * steps - 1


def test_one_drop_at_epoch_45() -> None:
    planned = rates(RECIPES["system_e"](), 781)
    lr = RECIPES["system_e"]().optimizer.lr
    assert planned == pytest.approx([lr] * 45 * 781 + [lr / 10] * 5 * 781)
