"""`fastcifar lr-find` and `fastcifar train --lr`: files, output, mistakes."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fastcifar.optim.muon import MuonConfig
from fastcifar.recipes import load_config
from fastcifar.schedules.one_cycle import OneCycle

Command = Callable[..., Any]


def small(data: Path, *more: object) -> list[object]:
    """The smoke recipe on the small set, with steps of milliseconds."""
    start = ["--recipe", "smoke", "--data", data, "--batch-size", 50, "--threads", 1, "--amp", "float32"]
    return [*start, "--cpu-kernels", "torch", "--model.widths", 8, 8, *more]


def test_output_and_files(small_data: Path, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "deep" / "found"
    done = command("lr-find", *small(small_data), "--out", out)
    assert done.code == 0, done
    assert {path.name for path in out.iterdir()} == {"smoke.png", "smoke.json"}
    assert (out / "smoke.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((out / "smoke.json").read_text())
    assert (found["recipe"], found["dataset"]) == ("smoke", "synthetic")
    assert 0 < found["min"] < found["max"]
    assert [len(one["rates"]) == len(one["losses"]) for one in found["trainings"]] == [True, True]
    lines = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    assert float(lines["maximum"].split()[0]) == found["max"]
    assert float(lines["minimum"].split()[0]) == found["min"]
    assert lines["maximum"].endswith("[synthetic data, not CIFAR-10]")
    assert (lines["plot"], lines["values"]) == (str(out / "smoke.png"), str(out / "smoke.json"))


def test_a_loss_that_falls_nowhere(
    small_data: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastcifar.training.step.TrainStep.__call__", lambda *_: (torch.tensor(2.4), torch.tensor(0)))
    done = command("lr-find", *small(small_data), "--out", tmp_path)
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines()[-1].startswith("failed: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--epochs", "-1"], "epochs is -1.0"),
        (["--data", "/nowhere"], "/nowhere/manifest.json"),
        (["--out", "/dev/null"], "/dev/null"),
    ],
)
def test_mistakes(arguments: list[str], shown: str, tmp_path: Path, command: Command) -> None:
    assert shown in command("lr-find", "--recipe", "smoke", "--out", tmp_path, *arguments).refused()
    assert not list(tmp_path.iterdir())


def test_a_training_with_found_rates_is_repeated_by_its_config(
    small_data: Path, tmp_path: Path, command: Command
) -> None:
    done = command("train", *small(small_data, "--epochs", 1, "--lr", "found", "--runs", tmp_path / "a"))
    assert done.code == 0, done
    (folder,) = (tmp_path / "a").iterdir()
    config = load_config(folder / "config.toml")
    figures = re.match(r"learning rate +(\S+) found", done.out)
    assert figures
    assert config.optimizer.lr == float(figures[1])
    assert isinstance(config.optimizer, MuonConfig)
    assert config.optimizer.head_lr == pytest.approx(0.67 / 0.24 * config.optimizer.lr)
    assert isinstance(config.schedule, OneCycle)
    assert config.schedule == OneCycle(peak_epoch=0, start=1, end=0)  # ends that are not found

    again = command("train", "--config", folder / "config.toml", "--runs", tmp_path / "b")
    assert not again.out.startswith("learning rate")
    (repeated,) = (tmp_path / "b").iterdir()
    digests = [json.loads((path / "record.json").read_text())["weights_sha256"] for path in (folder, repeated)]
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--lr", "fonud"], "--lr is 'fonud'"),
        (["--lr"], "--lr"),
        (["--lr", "-1"], "optimizer.lr is -1.0"),
        (["--lr", "nan"], "optimizer.lr is nan"),
    ],
)
def test_rates_that_are_refused(arguments: list[str], shown: str, command: Command) -> None:
    assert shown in command("train", "--recipe", "smoke", *arguments).refused()
