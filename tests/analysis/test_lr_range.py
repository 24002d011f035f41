"""The range test leaves everything as it was, works for every network, optimiser and loader, and finds known limits."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fastcifar.analysis.lr_range import (
    RangeTest,
    find_rates,
    losses_on_a_copy,
    lr_range_test,
    rates_of,
    sweep,
    with_rates,
)
from fastcifar.analysis.lr_suggest import Suggestion, clean, suggest
from fastcifar.config import AdamConfig, Config, MuonConfig, ResNetConfig, ScheduleConfig, SgdConfig, SpeedNetConfig
from fastcifar.errors import RunFailedError, UserError
from fastcifar.optim.build import build_optimizer
from fastcifar.optim.sgd import Sgd
from fastcifar.recipes import RECIPES
from fastcifar.runtime.device import select_runtime
from fastcifar.training.trainer import train

SMALL = ResNetConfig(width=4, dropout=0.1)  # dropout draws random numbers


@pytest.fixture(scope="module")
def resnet(tiny: Config) -> Config:
    return replace(tiny, epochs=1, resolution=((1.0, 16),), model=SMALL, optimizer=SgdConfig(lr=0.1))


def state_of(value: Any) -> Any:
    """Tensors of a model or an optimiser, copied, however deep they lie."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, nn.Module):
        return {name: tensor.clone() for name, tensor in value.state_dict().items()}
    if isinstance(value, list | tuple):
        return [state_of(item) for item in value]
    return {name: state_of(item) for name, item in vars(value).items()} if hasattr(value, "__dict__") else value


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return len(a) == len(b) and all(map(equal, a, b)) if isinstance(a, list) else a == b


@pytest.mark.parametrize(
    "optimizer", [SgdConfig(momentum=0.9), MuonConfig(), AdamConfig()], ids=lambda o: type(o).__name__
)
def test_model_and_optimizer_are_left_alone(optimizer: Any, tiny: Config) -> None:
    """In the middle of a training as well, when the optimiser has a state."""
    config = replace(tiny, optimizer=optimizer, model=SMALL)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 10, bias=False))
    trained = build_optimizer(model, optimizer, 1)
    batch = torch.randn(6, 3, 8, 8), torch.arange(6)
    for _ in range(3):
        nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
        trained.step(1.0)
        trained.zero_grad()
    model.eval()
    before = state_of([model, trained])
    losses, _ = losses_on_a_copy(
        model, trained, [batch] * 10, select_runtime(config), rates_of("linear", 0.01, 0.1, 10), config
    )
    assert len(losses) == 10
    assert losses[-1] < losses[0]  # the copy did learn, by the copied optimiser
    assert equal(state_of([model, trained]), before)
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


def test_a_training_afterwards_is_the_same(resnet: Config) -> None:
    """Weights, random numbers, thread counts: nothing of a range test can be seen in what follows."""
    alone = train(resnet)[1]["weights_sha256"]
    torch.manual_seed(5)
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    untouched = copy.deepcopy(resnet)
    lr_range_test(resnet, iterations=15)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.get_num_threads() == threads
    assert resnet == untouched
    assert train(resnet)[1]["weights_sha256"] == alone


def test_it_repeats_bit_for_bit_with_either_loader(resnet: Config) -> None:
    first, again = (lr_range_test(replace(resnet, loader=loader), iterations=20) for loader in ("resident", "stream"))
    assert first.losses.tobytes() == again.losses.tobytes()
    assert (first.kind, first.iterations, first.dataset, first.recipe) == ("exponential", 20, "synthetic", "smoke")
    assert first.rates == pytest.approx(np.geomspace(1e-5, 10, 20)[: len(first.losses)])


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe(recipe: str, small_data: Path) -> None:
    """With its optimiser, schedule and network; narrow where it can be, as the width changes nothing here."""
    config = RECIPES[recipe]()
    narrow = {ResNetConfig: {"width": 2}, SpeedNetConfig: {"widths": (4, 4)}}.get(type(config.model), {})
    model: Any = replace(config.model, **narrow)  # type: ignore[arg-type]
    config = replace(config, model=model, data=small_data, batch_size=20 if narrow else 4, device="cpu", threads=1)
    test = lr_range_test(config, iterations=10, start=1e-4, end=1e-2)
    assert len(test.losses) == 10
    assert np.isfinite(test.losses).all()


def test_images_have_the_size_of_the_peak(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def looking(self: Any, images: torch.Tensor, labels: torch.Tensor, fraction: float) -> tuple[torch.Tensor, ...]:
        sizes.append(images.shape[2])
        return torch.tensor(1.0), torch.tensor(0)

    monkeypatch.setattr("fastcifar.training.step.TrainStep.__call__", looking)
    config = replace(tiny, resolution=((0.5, 16), (1.0, 24)))
    for peak, size in ((0.0, 16), (2.9, 16), (3.1, 24), (6.0, 24)):
        sizes.clear()
        lr_range_test(replace(config, schedule=ScheduleConfig(peak_epoch=peak)), iterations=30)  # beyond an epoch
        assert sizes == [size] * 30


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_stable_limit_of_a_quadratic(momentum: float) -> None:
    """Gradient descent on h/2 w^2 is stable below 2 / h, with momentum m below 2 (1 + m) / h; with noisy gradients."""
    curvature = torch.logspace(-2, 1, 30)
    limit = 2 * (1 + momentum) / float(curvature.max())
    noise = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.ones(30))
    optimizer = Sgd([weight], lr=1.0, momentum=momentum)

    def loss_at(rate: float) -> float:
        loss = (curvature * weight**2).sum() / 2
        loss.backward()
        assert weight.grad is not None
        weight.grad += 0.1 * torch.randn(30, generator=noise)
        optimizer.step(rate)
        optimizer.zero_grad()
        return loss.item() + 0.02 * float(torch.randn((), generator=noise))

    rates = rates_of("exponential", 1e-5, 100, 300)
    losses, diverged = sweep(loss_at, rates)
    assert diverged
    assert limit < rates[len(losses) - 1] < 4 * limit  # noticed soon after it began
    curve = clean(rates[: len(losses)], losses, 300)
    assert limit / 20 < curve.rates[curve.lowest] < 1.5 * limit  # instability takes a few steps to show
    for suggestion in suggest(curve).values():
        assert suggestion.maximum < limit


def test_a_sweep_ends_where_the_loss_diverges() -> None:
    def run(losses: list[float]) -> tuple[list[float], bool]:
        found, diverged = sweep(lambda rate: losses[round(rate)], np.arange(float(len(losses))))
        return found.tolist(), diverged

    assert run([1.0, 2, 3.9, 1]) == ([1, 2, 3.9, 1], False)
    assert run([1.0, 1, 4.1, 1]) == ([1, 1, 4.1], True)
    for value in (math.inf, math.nan):
        found, diverged = run([1.0, value, 1])
        assert (len(found), diverged) == (2, True)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (("cubic", 1e-5, 1, 100), "kind is 'cubic', but must be exponential or linear"),
        (("linear", 0, 1, 100), "from is 0, but must be above 0 and at most 1e+09"),
        (("linear", 0.1, math.inf, 100), "to is inf, but must be above 0 and at most 1e+09"),
        (("linear", math.nan, 1, 100), "from is nan, but must be above 0 and at most 1e+09"),
        (("linear", 2, 1, 100), "from is 2 and to is 1, but the learning rate must grow"),
        (("linear", 0.1, 1, 9), "iterations is 9, but must be between 10 and 100000"),
    ],
)
def test_values_that_are_refused(values: Any, text: str) -> None:
    with pytest.raises(UserError) as caught:
        rates_of(*values)
    assert str(caught.value) == text


def test_rates() -> None:
    assert rates_of("linear", 1, 10, 10).tolist() == pytest.approx(list(range(1, 11)))
    assert rates_of("exponential", 1, 512, 10).tolist() == pytest.approx([2**power for power in range(10)])


def test_found_rates_in_a_configuration(tiny: Config, resnet: Config) -> None:
    found = Suggestion(maximum=0.12, minimum=0.006)
    muon = with_rates(tiny, found)
    assert muon.optimizer == replace(MuonConfig(), lr=0.12, bias_lr=0.053 / 2, head_lr=0.67 / 2)
    assert (muon.schedule.start, muon.schedule.end) == (pytest.approx(0.05), pytest.approx(0.05))
    assert with_rates(resnet, found).optimizer == SgdConfig(lr=0.12)
    stepwise = replace(resnet, schedule=ScheduleConfig(peak_epoch=1, start=1, end=0.1, anneal="step"))
    assert with_rates(stepwise, found).schedule == stepwise.schedule


def test_rates_are_found_for_a_run(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = np.geomspace(1e-5, 10, 100)
    test = RangeTest(
        kind="exponential",
        iterations=100,
        rates=rates,
        losses=2.3 - 1 / (1 + (0.005 / rates) ** 1.5) + rates**4,
        diverged=False,
        seconds=3.0,
        dataset="synthetic",
        recipe="smoke",
    )
    monkeypatch.setattr("fastcifar.analysis.lr_range.lr_range_test", lambda config: test)
    config, text = find_rates(tiny)
    best = test.suggest()["bound"]
    assert config == with_rates(tiny, best)
    assert text == (
        f"learning rate       {best.maximum:.4g} found (bound), {best.minimum:.4g} at the ends; "
        "range test of 100 steps in 3.0 s"
    )
    monkeypatch.setattr(
        "fastcifar.analysis.lr_range.lr_range_test", lambda config: replace(test, losses=np.full(100, 2.3))
    )
    with pytest.raises(RunFailedError, match="the loss does not clearly fall"):
        find_rates(tiny)
