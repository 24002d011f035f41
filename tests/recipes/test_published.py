"""The five published systems: parameters of their networks, and schedules that reach the published learning rates."""

import pytest

from fastcifar.analysis.plan import plan
from fastcifar.config import AugmentConfig
from fastcifar.evaluation.single_view import SingleView
from fastcifar.models.build import outline
from fastcifar.recipes import RECIPES
from fastcifar.recipes.published import SYSTEMS


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


def test_all_share_the_augmentation_and_evaluation_of_the_reference_setting() -> None:
    for config in (system() for system in SYSTEMS):
        assert config.augment == AugmentConfig(pad=4, pad_mode="zero", flip="random", cutout=8)
        assert (config.evaluation, config.label_smoothing, config.resolution) == (SingleView(), 0.0, ((1.0, 32),))


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
    rates = plan(RECIPES[name](), steps).rates["all"]
    assert len(rates) == 24 * steps
    assert (rates[0], rates[-1], rates.max()) == pytest.approx((first, first, highest))
    assert rates.argmax() == at_epoch * steps - 1


def test_one_drop_at_epoch_45() -> None:
    config = RECIPES["system_e"]()
    lr = config.optimizer.lr
    assert plan(config, 781).rates["all"].tolist() == pytest.approx([lr] * 45 * 781 + [lr / 10] * 5 * 781)
