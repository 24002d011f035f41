"""`python -m fastcifar lr-find` and `--lr` of `python -m fastcifar.train`: files, output, mistakes."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastcifar.config import MuonConfig
from fastcifar.recipes import load_config

Command = Callable[..., Any]


def small(data: Path, *more: object) -> list[object]:
    """The smoke recipe on the small set, its steps in milliseconds."""
    start = ["--recipe", "smoke", "--data", data, "--batch-size", 50, "--threads", 1, "--amp", "float32"]
    return [*start, "--model.widths", 8, 8, *more]


def test_what_it_writes_and_prints(small_data: Path, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "deep" / "found"
    done = command(
        "lr_find", *small(small_data), "--iterations", 60, "--from", 1e-4, "--method", "steepest", "--out", out
    )
    assert done.code == 0, done
    assert {path.name for path in out.iterdir()} == {"lr_find.png", "lr_find.json"}
    assert (out / "lr_find.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((out / "lr_find.json").read_text())
    assert (found["recipe"], found["dataset"], found["kind"], found["from"]) == (
        "smoke",
        "synthetic",
        "exponential",
        1e-4,
    )
    assert found["method"] == "steepest"
    assert {"max": found["max"], "min": found["min"]} == found["suggestions"]["steepest"]
    assert set(found["suggestions"]) == {"bound", "steepest", "valley", "minimum"}
    assert len(found["rates"]) == len(found["losses"]) <= 60
    assert len(found["smoothed"]["rates"]) == len(found["smoothed"]["losses"]) <= len(found["rates"])
    header, *rows, test, where = done.out.splitlines()
    assert header.split() == ["method", "max", "min"]
    assert [row.split()[0] for row in rows] == ["bound", "steepest", "valley", "minimum"]
    assert [float(row.split()[1]) for row in rows] == [pair["max"] for pair in found["suggestions"].values()]
    assert "  *" in rows[1]
    assert all(line.endswith("  [synthetic data, not CIFAR-10]") for line in (*rows, test))
    assert where == f"curve     {out / 'lr_find.png'}"
    assert "range test of smoke" in done.err


def test_losses_that_suggest_nothing_are_still_drawn(small_data: Path, tmp_path: Path, command: Command) -> None:
    limits = ["--from", 1e-8, "--to", 2e-8, "--iterations", 20, "--kind", "linear"]
    done = command("lr_find", *small(small_data), *limits, "--out", tmp_path)
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines()[-1] == (
        "failed: the loss does not clearly fall between learning rates 1e-08 and 2e-08, so none can be suggested; "
        f"widen the range, or give the test more iterations; {tmp_path / 'lr_find.png'} shows the losses"
    )
    found = json.loads((tmp_path / "lr_find.json").read_text())
    assert (found["max"], found["min"], found["suggestions"], len(found["losses"])) == (None, None, {}, 20)
    assert (tmp_path / "lr_find.png").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--from", "0"], "from is 0.0, but must be above 0 and at most 1e+09"),
        (["--from", "2", "--to", "1"], "from is 2 and to is 1, but the learning rate must grow"),
        (["--iterations", "5"], "iterations is 5, but must be between 10 and 100000"),
        (["--kind", "cubic"], "invalid choice 'cubic' for argument '--kind'"),
        (["--epochs", "-1"], "epochs is -1.0, but must be above 0 and at most a million"),
        (["--data", "/nowhere"], "no prepared data in /nowhere: /nowhere/manifest.json is missing"),
    ],
)
def test_mistakes(arguments: list[str], text: str, tmp_path: Path, command: Command) -> None:
    refused = command("lr_find", "--recipe", "smoke", "--out", tmp_path, *arguments).refused()
    assert refused.startswith(text)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(small_data: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "file").write_text("")
    refused = command("lr_find", *small(small_data), "--out", tmp_path / "file").refused()
    assert refused == f"cannot make the folder {tmp_path / 'file'}: File exists; choose another --out"


def test_a_training_at_found_rates_is_repeated_by_its_config(
    small_data: Path, tmp_path: Path, command: Command
) -> None:
    done = command("train", *small(small_data, "--epochs", 1, "--lr", "found", "--runs", tmp_path / "a"))
    assert done.code == 0, done
    found, *_ = done.out.splitlines()
    figures = re.fullmatch(
        r"learning rate       (\S+) found \(bound\), (\S+) at the ends; range test of \d+ steps in [\d.]+ s", found
    )
    assert figures
    (folder,) = (tmp_path / "a").iterdir()
    config = load_config(folder / "config.toml")
    assert config.optimizer.lr == float(figures[1])
    assert isinstance(config.optimizer, MuonConfig)
    assert config.optimizer.head_lr == pytest.approx(0.67 / 0.24 * config.optimizer.lr)
    assert config.schedule.start == config.schedule.end == pytest.approx(float(figures[2]) / float(figures[1]))

    again = command("train", "--config", folder / "config.toml", "--runs", tmp_path / "b")
    assert not again.out.startswith("learning rate")
    (repeated,) = (tmp_path / "b").iterdir()
    digests = [json.loads((path / "record.json").read_text())["weights_sha256"] for path in (folder, repeated)]
    assert digests[0] == digests[1]


def test_a_rate_by_its_short_name(small_data: Path, tmp_path: Path, command: Command) -> None:
    done = command("train", *small(small_data, "--epochs", 0.2, "--lr", "0.125", "--runs", tmp_path))
    assert done.code == 0, done
    (folder,) = tmp_path.iterdir()
    assert load_config(folder / "config.toml").optimizer.lr == 0.125


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--lr", "fonud"], "--lr is 'fonud', but must be a learning rate or the word found"),
        (["--lr"], "--lr needs a value"),
        (["--lr", "-1"], "Error parsing optimizer: optimizer.lr is -1.0, but must be above 0 and at most 1e+09; see"),
        (["--lr", "nan"], "Error parsing optimizer: optimizer.lr is nan, but must be a finite number; see"),
    ],
)
def test_rates_that_are_refused(arguments: list[str], text: str, command: Command) -> None:
    assert command("train", "--recipe", "smoke", *arguments).refused().startswith(text)
