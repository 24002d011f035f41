"""The baselines say what their sources publish."""

from pathlib import Path

from fastcifar.config import FfcvNetConfig, MuonConfig, SgdConfig, SpeedNetConfig
from fastcifar.config.toml import to_toml
from fastcifar.recipes import RECIPES
from fastcifar.recipes.baselines import airbench94, ffcv_example, hiverge94


def test_airbench94() -> None:
    config = airbench94()
    assert (config.epochs, config.batch_size, config.label_smoothing) == (8, 2000, 0.2)
    assert config.resolution == ((1.0, 32),)
    assert isinstance(config.model, SpeedNetConfig)
    assert (config.model.widths, config.model.logit_scale) == ((64, 256, 256), 1 / 256)
    assert isinstance(config.optimizer, MuonConfig)
    assert config.optimizer.weight_decay == 2e-6 * config.batch_size


def test_hiverge94() -> None:
    config = hiverge94()
    assert (config.epochs, config.batch_size, config.label_smoothing) == (7.63, 1536, 0.09)
    assert isinstance(config.model, SpeedNetConfig)
    assert (config.model.widths, config.model.activation, config.model.stem_epochs) == ((64, 256, 256), "silu", 0.19)
    assert isinstance(config.optimizer, MuonConfig)
    rates = config.optimizer.lr, config.optimizer.bias_lr, config.optimizer.head_lr
    assert rates == (0.205, 0.0573, 0.5415)


def test_ffcv_example() -> None:
    config = ffcv_example()
    assert (config.epochs, config.batch_size, config.label_smoothing) == (24, 512, 0.1)
    assert config.model == FfcvNetConfig(width=64, logit_scale=0.2)
    assert config.optimizer == SgdConfig(lr=0.5, momentum=0.9, weight_decay=5e-4)
    assert (config.augment.pad, config.augment.cutout, config.evaluation) == (2, 4, "flip_tta")


def test_they_are_recipes(tmp_path: Path) -> None:
    for baseline in (airbench94, hiverge94, ffcv_example):
        assert RECIPES[baseline.__name__]() == baseline()
        assert f'recipe = "{baseline.__name__}"' in to_toml(baseline())
