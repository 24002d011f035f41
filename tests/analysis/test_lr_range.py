"""The range test: no side effects, works for every recipe and loader, and finds known limits of stability."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fastcifar.analysis.lr_range import RangeTest, find_rates, lr_range_test, rates_of, sweep, with_rates
from fastcifar.analysis.lr_suggest import Suggestion, clean, suggest
from fastcifar.config import Config
from fastcifar.errors import RunFailedError, UserError
from fastcifar.models.resnet import ResNetConfig
from fastcifar.models.speednet import SpeedNetConfig
from fastcifar.optim.muon import MuonConfig
from fastcifar.optim.rates import set_lr
from fastcifar.optim.sgd import SgdConfig
from fastcifar.recipes import RECIPES
from fastcifar.schedules.one_cycle import OneCycle
from fastcifar.schedules.step_decay import StepDecay
from fastcifar.training.trainer import train


@pytest.fixture(scope="module")
def resnet(tiny: Config) -> Config:
    model = ResNetConfig(width=4, dropout=0.1)  # dropout draws random numbers
    return replace(tiny, epochs=1, resolution=((1.0, 16),), model=model, optimizer=SgdConfig(lr=0.1))


def test_a_training_afterwards_is_the_same(resnet: Config) -> None:
    alone = train(resnet)[1]["weights_sha256"]
    torch.manual_seed(5)
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    lr_range_test(resnet, iterations=15)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.get_num_threads() == threads
    assert train(resnet)[1]["weights_sha256"] == alone


def test_it_repeats_bit_for_bit(resnet: Config) -> None:
    first, again = (lr_range_test(resnet, iterations=20) for _ in range(2))
    assert first.losses.tobytes() == again.losses.tobytes()
    assert (first.kind, first.iterations, first.dataset, first.recipe) == ("exponential", 20, "synthetic", "smoke")
    assert first.rates == pytest.approx(np.geomspace(1e-5, 10, 20)[: len(first.losses)])


def test_every_recipe(small_data: Path) -> None:
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
        test = lr_range_test(config, iterations=10, start=1e-4, end=1e-2)
        assert len(test.losses) == 10, config.recipe
        assert np.isfinite(test.losses).all(), config.recipe


def test_images_have_the_size_of_the_peak(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def record_size(self: Any, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        sizes.append(images.shape[2])
        return torch.tensor(1.0), torch.tensor(0)

    monkeypatch.setattr("fastcifar.training.step.TrainStep.__call__", record_size)
    config = replace(tiny, resolution=((0.5, 16), (1.0, 24)))
    for peak, size in ((0.0, 16), (2.9, 16), (3.1, 24), (6.0, 24)):
        sizes.clear()
        lr_range_test(replace(config, schedule=OneCycle(peak_epoch=peak)), iterations=30)  # beyond an epoch
        assert sizes == [size] * 30


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_stable_limit_of_a_quadratic(momentum: float) -> None:
    """Gradient descent on h/2 w^2 is stable below 2 / h, with momentum m below 2 (1 + m) / h; with noisy gradients."""
    curvature = torch.logspace(-2, 1, 30)
    limit = 2 * (1 + momentum) / float(curvature.max())
    noise = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.ones(30))
    optimizer = torch.optim.SGD([weight], lr=1.0, momentum=momentum)

    def loss_at(rate: float) -> float:
        loss = (curvature * weight**2).sum() / 2
        loss.backward()
        assert weight.grad is not None
        weight.grad += 0.1 * torch.randn(30, generator=noise)
        set_lr(optimizer, rate)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item() + 0.02 * float(torch.randn((), generator=noise))

    rates = rates_of("exponential", 1e-5, 100, 300)
    losses, diverged = sweep(loss_at, rates)
    assert diverged
    assert limit < rates[len(losses) - 1] < 4 * limit  # detected soon after it began
    curve = clean(rates[: len(losses)], losses, 300)
    assert limit / 20 < curve.rates[curve.lowest] < 1.5 * limit  # instability takes a few steps to show
    for suggestion in suggest(curve).values():
        assert suggestion.maximum < limit


def test_a_sweep_ends_where_the_loss_diverges() -> None:
    def run(*losses: float) -> tuple[int, bool]:
        found, diverged = sweep(lambda rate: losses[round(rate)], np.arange(float(len(losses))))
        assert found[:-1].tolist() == list(losses[: len(found) - 1])
        return len(found), diverged

    assert run(1.0, 2, 3.9, 1) == (4, False)
    assert run(1.0, 1, 4.1, 1) == (3, True)
    assert run(1.0, math.inf, 1) == run(1.0, math.nan, 1) == (2, True)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (("cubic", 1e-5, 1, 100), "kind is 'cubic'"),
        (("linear", 0, 1, 100), "from is 0,"),
        (("linear", 0.1, math.inf, 100), "to is inf,"),
        (("linear", math.nan, 1, 100), "from is nan,"),
        (("linear", 2, 1, 100), "from is 2 and to is 1,"),
        (("linear", 0.1, 1, 9), "iterations is 9,"),
    ],
)
def test_invalid_values(values: Any, text: str) -> None:
    with pytest.raises(UserError, match=text):
        rates_of(*values)


def test_rates() -> None:
    assert rates_of("linear", 1, 10, 10).tolist() == pytest.approx(list(range(1, 11)))
    assert rates_of("exponential", 1, 512, 10).tolist() == pytest.approx([2**power for power in range(10)])


def test_found_rates_in_a_configuration(tiny: Config, resnet: Config) -> None:
    found = Suggestion(maximum=0.12, minimum=0.006)
    muon = with_rates(tiny, found)
    assert muon.optimizer == replace(MuonConfig(), lr=0.12, bias_lr=0.053 / 2, head_lr=0.67 / 2)
    assert muon.schedule == replace(tiny.schedule, start=0.006 / 0.12, end=0.006 / 0.12)
    assert with_rates(resnet, found).optimizer == SgdConfig(lr=0.12)
    stepwise = replace(resnet, schedule=StepDecay())
    assert with_rates(stepwise, found).schedule == stepwise.schedule


def test_rates_are_found_for_a_run(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = np.geomspace(1e-5, 10, 100)
    losses = 2.3 - 1 / (1 + (0.005 / rates) ** 1.5) + rates**4
    facts: dict[str, Any] = {"kind": "exponential", "iterations": 100, "diverged": False, "recipe": "smoke"}
    test = RangeTest(rates=rates, losses=losses, seconds=3.0, dataset="synthetic", **facts)
    monkeypatch.setattr("fastcifar.analysis.lr_range.lr_range_test", lambda config: test)
    config, text = find_rates(tiny)
    best = test.suggest()["bound"]
    assert config == with_rates(tiny, best)
    assert f"{best.maximum:.4g} found (bound), {best.minimum:.4g}" in text
    flat = replace(test, losses=np.full(100, 2.3))
    monkeypatch.setattr("fastcifar.analysis.lr_range.lr_range_test", lambda config: flat)
    with pytest.raises(RunFailedError, match="1e-05"):
        find_rates(tiny)
