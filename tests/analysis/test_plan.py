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
    assert plan(finished.config, 12).rates["lr"].tolist() == pytest.approx(rates, rel=1e-12)


def test_marks_of_the_reference_schedule() -> None:
    """97 steps per epoch, the peak at epoch 5 of 24, no annihilation."""
    assert plan(Config(schedule=OneCycle(peak_epoch=5, start=0.1, end=0.1)), 97).marks == {
        "start": {"iteration": 0, "epoch": 0, "lr": pytest.approx(0.01)},
        "peak": {"iteration": 484, "epoch": pytest.approx(484 / 97), "lr": pytest.approx(0.1)},
        "end": {"iteration": 2327, "epoch": pytest.approx(2327 / 97), "lr": pytest.approx(0.01)},
    }


def test_every_rate_and_momentum_of_an_optimizer() -> None:
    muon = plan(Config(epochs=6, optimizer=MuonConfig()), 12)
    assert list(muon.rates) == ["lr", "bias_lr", "head_lr"]
    assert {name: set(values) for name, values in muon.momenta.items()} == {"momentum": {0.6}, "sgd_momentum": {0.85}}
    assert muon.rates["head_lr"].tolist() == pytest.approx((muon.rates["lr"] * 0.67 / 0.24).tolist())
    adam = plan(Config(epochs=6, optimizer=AdamConfig()), 12)
    assert (list(adam.rates), list(adam.momenta)) == (["lr"], ["beta1"])
    assert len(adam.epochs) == len(adam.rates["lr"]) == len(adam.momenta["beta1"]) == 72
