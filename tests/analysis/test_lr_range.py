"""The range test: no side effects, works for every recipe and loader, and finds known limits of stability."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fastcifar.analysis import lr_range
from fastcifar.analysis.lr_range import RangeTest, find_rates, lr_range_test, with_rates
from fastcifar.analysis.lr_search import LENGTHS, Found
from fastcifar.config import Config
from fastcifar.errors import RunFailedError
from fastcifar.models.resnet import ResNetConfig
from fastcifar.models.speednet import SpeedNetConfig
from fastcifar.optim.muon import MuonConfig
from fastcifar.optim.sgd import SgdConfig
from fastcifar.recipes import RECIPES
from fastcifar.schedules.one_cycle import OneCycle
from fastcifar.schedules.step_decay import StepDecay
from fastcifar.training.trainer import train


@pytest.fixture(scope="module")
def resnet(tiny: Config) -> Config:
    model = ResNetConfig(width=4, dropout=0.02, logit_scale=0.1)  # dropout draws random numbers
    return replace(tiny, epochs=1, resolution=((1.0, 16),), model=model, optimizer=SgdConfig(lr=0.1))


@pytest.fixture(scope="module")
def measured(resnet: Config) -> RangeTest:
    return lr_range_test(resnet)


def test_it_repeats_bit_for_bit_and_a_training_afterwards_is_the_same(resnet: Config, measured: RangeTest) -> None:
    alone = train(resnet)[1]["weights_sha256"]
    torch.manual_seed(5)
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    again = lr_range_test(resnet)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.get_num_threads() == threads
    assert train(resnet)[1]["weights_sha256"] == alone
    for one, other in ((measured.short, again.short), (measured.long, again.long)):
        assert one.rates.tobytes() == other.rates.tobytes()
        assert one.losses.tobytes() == other.losses.tobytes()
    assert (measured.short.steps, measured.long.steps) == LENGTHS
    assert (measured.dataset, measured.recipe) == ("synthetic", "smoke")


def test_every_recipe(small_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One recipe of each optimiser, schedule and network; narrow where possible, as the width changes nothing here."""
    found: dict[Any, Config] = {}
    for recipe in RECIPES.values():
        config = recipe()
        found.setdefault((type(config.model), type(config.optimizer), type(config.schedule)), config)
    for config in found.values():
        narrow = {ResNetConfig: {"width": 2}, SpeedNetConfig: {"widths": (4, 4)}}.get(type(config.model), {})
        model: Any = replace(config.model, **narrow)  # type: ignore[arg-type]
        fast: dict[str, Any] = {"device": "cpu", "threads": 1, "cpu_kernels": "torch", "amp": "float32"}
        fast |= {"batch_size": 20 if narrow else 2, "resolution": ((1.0, 16),)}
        config = replace(config, model=model, data=small_data, **fast)
        monkeypatch.setattr(lr_range, "search", lambda loss_at, rate, guessing: [loss_at(rate / 100, 4)] * 2)
        assert math.isfinite(lr_range_test(config).short), config.recipe  # type: ignore[arg-type]


def test_images_have_the_size_of_the_peak(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def record_size(self: Any, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        sizes.append(images.shape[2])
        return torch.tensor(2.4), torch.tensor(0)

    monkeypatch.setattr("fastcifar.training.step.TrainStep.__call__", record_size)
    config = replace(tiny, resolution=((0.5, 16), (1.0, 24)))
    for peak, size in ((0.0, 16), (2.9, 16), (3.1, 24), (6.0, 24)):
        sizes.clear()
        with pytest.raises(RunFailedError):  # this loss never falls
            lr_range_test(replace(config, schedule=OneCycle(peak_epoch=peak)))
        assert sizes == [size] * len(sizes)
        assert len(sizes) >= LENGTHS[0]  # beyond an epoch


def test_found_rates_in_a_configuration(tiny: Config, resnet: Config) -> None:
    found = Found(maximum=0.12, minimum=0.006, power=0.0)
    muon = with_rates(tiny, found)
    assert muon.optimizer == replace(MuonConfig(), lr=0.12, bias_lr=0.053 / 2, head_lr=0.67 / 2)
    assert muon.schedule == tiny.schedule  # it starts at its peak and ends at 0
    cycle = replace(resnet, schedule=OneCycle(peak_epoch=0.5, start=0.1, end=0.0))
    assert with_rates(cycle, found).optimizer == SgdConfig(lr=0.12)
    assert with_rates(cycle, found).schedule == OneCycle(peak_epoch=0.5, start=0.006 / 0.12, end=0.0)
    stepwise = replace(resnet, schedule=StepDecay())
    assert with_rates(stepwise, found).schedule == stepwise.schedule


def test_rates_are_found_for_a_run(resnet: Config, measured: RangeTest, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(lr_range, "lr_range_test", lambda config: measured)
        config, text = find_rates(resnet)
    assert config == with_rates(resnet, measured.found)
    assert f"{measured.found.maximum:.4g} found" in text
    monkeypatch.setattr("fastcifar.training.step.TrainStep.__call__", lambda *_: (torch.tensor(2.4), torch.tensor(0)))
    with pytest.raises(RunFailedError, match="guessing"):
        find_rates(resnet)
