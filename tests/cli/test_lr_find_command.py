"""`fastcifar lr-find` and `fastcifar train --lr`: files, output, mistakes."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastcifar.optim.muon import MuonConfig
from fastcifar.recipes import load_config
from fastcifar.schedules.one_cycle import OneCycle

Command = Callable[..., Any]
METHODS = ["bound", "steepest", "valley", "minimum"]


def small(data: Path, *more: object) -> list[object]:
    """The smoke recipe on the small set, with steps of milliseconds."""
    start = ["--recipe", "smoke", "--data", data, "--batch-size", 50, "--threads", 1, "--amp", "float32"]
    return [*start, "--cpu-kernels", "torch", "--model.widths", 8, 8, *more]


def test_output_and_files(small_data: Path, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "deep" / "found"
    flags = ["--iterations", 60, "--from", 1e-4, "--method", "steepest", "--out", out]
    done = command("lr-find", *small(small_data), *flags)
    assert done.code == 0, done
    assert {path.name for path in out.iterdir()} == {"smoke.png", "smoke.json"}
    assert (out / "smoke.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((out / "smoke.json").read_text())
    assert (found["recipe"], found["dataset"], found["kind"]) == ("smoke", "synthetic", "exponential")
    assert (found["from"], found["method"]) == (1e-4, "steepest")
    assert {"max": found["max"], "min": found["min"]} == found["suggestions"]["steepest"]
    assert len(found["rates"]) == len(found["losses"]) <= 60
    assert len(found["smoothed"]["rates"]) == len(found["smoothed"]["losses"]) <= len(found["rates"])
    header, *rows, test, plot, values = done.out.splitlines()
    assert header.split() == ["method", "max", "min"]
    assert [row.split()[0] for row in rows] == list(found["suggestions"]) == METHODS
    assert [float(row.split()[1]) for row in rows] == [pair["max"] for pair in found["suggestions"].values()]
    assert ["*" in row for row in rows] == [False, True, False, False]
    assert all(line.endswith("  [synthetic data, not CIFAR-10]") for line in (*rows, test))
    assert (plot.split()[-1], values.split()[-1]) == (str(out / "smoke.png"), str(out / "smoke.json"))


def test_losses_without_a_suggestion_are_still_plotted(small_data: Path, tmp_path: Path, command: Command) -> None:
    limits = ["--from", 1e-8, "--to", 2e-8, "--iterations", 20, "--kind", "linear"]
    done = command("lr-find", *small(small_data), *limits, "--out", tmp_path)
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines()[-1].startswith("failed: ")
    assert str(tmp_path / "smoke.png") in done.err.splitlines()[-1]
    found = json.loads((tmp_path / "smoke.json").read_text())
    assert (found["max"], found["min"], found["suggestions"], len(found["losses"])) == (None, None, {}, 20)
    assert (tmp_path / "smoke.png").exists()
    again = command("lr-find", *small(small_data), *limits, "--out", tmp_path)
    assert f"{tmp_path / 'smoke.png'} (replaced)" in again.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--from", "0"], "from is 0.0"),
        (["--from", "2", "--to", "1"], "from is 2 and to is 1"),
        (["--iterations", "5"], "iterations is 5"),
        (["--kind", "cubic"], "'cubic' for argument '--kind'"),
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
    figures = re.match(r"learning rate +(\S+) found \(bound\), (\S+) at the ends", done.out)
    assert figures
    assert config.optimizer.lr == float(figures[1])
    assert isinstance(config.optimizer, MuonConfig)
    assert config.optimizer.head_lr == pytest.approx(0.67 / 0.24 * config.optimizer.lr)
    assert isinstance(config.schedule, OneCycle)
    assert config.schedule.start == config.schedule.end == pytest.approx(float(figures[2]) / float(figures[1]))

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
