"""A plan has the learning rates that the trainer writes into its metrics."""

import json
from typing import Any

import pytest

from fastcifar.analysis.plan import plan
from fastcifar.config import Config
from fastcifar.optim.adam import AdamConfig
from fastcifar.optim.muon import MuonConfig
from fastcifar.schedules.one_cycle import OneCycle


def test_a_run_has_the_planned_rates(finished: Any) -> None:
    lines = [json.loads(line) for line in (finished.folder / "metrics.jsonl").read_text().splitlines()]
    rates = [line["lr"] for line in lines if line["kind"] == "step"]
    planned = plan(finished.config, 12)
    assert [dict(zip(planned.rates, some, strict=True)) for some in zip(*planned.rates.values(), strict=True)] == rates
    assert list(planned.rates) == ["filters", "biases", "head"]


def test_marks_of_the_reference_schedule() -> None:
    """97 steps per epoch, the peak at epoch 5 of 24, no annihilation."""
    assert plan(Config(schedule=OneCycle(peak_epoch=5, start=0.1, end=0.1)), 97).marks == {
        "start": {"iteration": 0, "epoch": 0, "lr": pytest.approx(0.01)},
        "peak": {"iteration": 484, "epoch": pytest.approx(484 / 97), "lr": pytest.approx(0.1)},
        "end": {"iteration": 2327, "epoch": pytest.approx(2327 / 97), "lr": pytest.approx(0.01)},
    }


def test_every_rate_and_momentum_of_an_optimizer() -> None:
    muon = plan(Config(epochs=6, optimizer=MuonConfig()), 12)
    assert {name: set(values) for name, values in muon.momenta.items()} == {
        "filters": {0.6},
        "biases": {0.85},
        "head": {0.85},
    }
    batch_size = Config().batch_size
    assert muon.rates["head"].tolist() == pytest.approx((muon.rates["filters"] * batch_size * 0.67 / 0.24).tolist())
    adam = plan(Config(epochs=6, optimizer=AdamConfig()), 12)
    assert (list(adam.rates), list(adam.momenta)) == (["all"], ["all"])
    assert len(adam.epochs) == len(adam.rates["all"]) == len(adam.momenta["all"]) == 72
