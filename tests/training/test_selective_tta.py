"""A run whose evaluation is "selective_tta": the record, and every page that shows it, speak of six views."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastcifar.analysis.evaluation import evaluate_run, summarise
from fastcifar.analysis.report.page import build_report
from fastcifar.cli.train import summary
from fastcifar.config import Config
from fastcifar.export.model_card import model_card
from fastcifar.runs.load import load_run
from fastcifar.training.trainer import train

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def run(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(replace(tiny, epochs=2, evaluation="selective_tta", runs=tmp_path_factory.mktemp("selective_tta")))[0]


def test_computed_again_it_is_what_the_record_says(run: Path) -> None:
    trained = load_run(run)
    evaluation = evaluate_run(trained)
    views = summarise(evaluation)["views"]
    assert list(views) == ["single_view", "selective_tta"]
    fractions = [views[kind]["accuracy"]["fraction"] for kind in views]
    assert fractions == [trained.record["test_accuracy"], trained.record["test_accuracy_tta"]]
    changed = (evaluation.logits["single_view"] != evaluation.logits["selective_tta"]).any(1)
    assert changed.sum() == len(changed) // 5 == 40


def test_what_people_read(run: Path, command: Command) -> None:
    record = load_run(run).record
    fraction = f"{record['test_accuracy_tta']:.2%}"
    assert f"\n  six when unsure   {fraction} (this one counts)  [synthetic" in summary(run, record)
    assert f"| test accuracy, six when unsure | {fraction} (this one counts): for the fifth" in model_card(
        load_run(run)
    )
    html = build_report([run])
    assert "mirrored views" not in html
    assert "and of the mirror images of these. Which view counts" in html
    assert re.search(rf"test accuracy, six when unsure</dt><dd><strong>{fraction}</strong>", html)
    head = command("evaluate", run, "--out", run / "out").out.splitlines()[0]
    assert head == "class         images                  one view  six when unsure (counts)"
