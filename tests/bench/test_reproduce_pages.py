"""The page of a published system: what its authors show is there, and the range test is made once."""

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import reproduce, reproduce_pages
from bench.published import PARAMETERS, PUBLISHED
from bench.reproduce import Options, figures, main, summarise
from bench.reproduce_pages import beside, build_page, range_test
from fastcifar.analysis.lr_range import RangeTest
from fastcifar.analysis.lr_search import Curve
from fastcifar.config import Config
from fastcifar.models.layer_table import layers
from fastcifar.recipes import RECIPES
from fastcifar.runs.record import code_revision

SECTIONS = ["result", "published", "rates", "training", "classes", "wrong", "correct", "grad-cam", "network"]
CHARTS = ["Range test", "Planned learning rate", "Triangular cycles", "Loss against", "Accuracy against epochs"]
CURVES = [
    Curve(steps=steps, rates=np.geomspace(0.001, 0.1, 5), losses=np.array([2.2, 1.9, 1.7, 2.0, math.inf]), guessing=2.3)
    for steps in (30, 60)
]
RANGE_TEST = RangeTest(short=CURVES[0], long=CURVES[1], total=600, seconds=1.0, dataset="synthetic", recipe="system_a")


@pytest.fixture
def config(finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A copy of the finished run, as if it were one of system A."""
    shutil.copytree(finished.folder, tmp_path / "runs" / "copy")
    monkeypatch.setattr(reproduce_pages, "keep_freed_memory", lambda: None)  # it cannot be undone
    monkeypatch.setattr(reproduce_pages, "lr_range_test", lambda config: RANGE_TEST)
    return replace(finished.config, recipe="system_a", runs=tmp_path / "runs")


def result_of(config: Config, finished: Any) -> dict[str, Any]:
    return summarise({config.recipe: [figures(config.runs / "copy", finished.record)]}, Options())


def test_the_page_shows_all_that_the_published_systems_show(config: Config, finished: Any) -> None:
    html = build_page(result_of(config, finished), config, 12)
    ids = re.findall(r'<section id="([^"]+)"', html)
    assert [name for name in ids if name in SECTIONS] == SECTIONS
    assert len(set(ids)) == len(ids)
    charts = re.findall(r'<svg class="chart"[^>]*aria-label="([^"]+)"', html)
    for shown in CHARTS:
        assert sum(label.startswith(shown) for label in charts) == 1, shown
    record = finished.record
    for cell in ("90.02%", f"{record['test_accuracy']:.2%}", "6,573,130", record["versions"]["torch"]):
        assert f"<td>{cell}</td>" in html


def test_the_range_test_is_made_once(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = config.runs / "copy"
    first = range_test(config, folder)
    assert {path.name for path in folder.glob("lr_find.*")} == {"lr_find.json", "lr_find.png"}
    made: list[Config] = []
    other = replace(first, seconds=2.0)
    monkeypatch.setattr(reproduce_pages, "lr_range_test", lambda config: made.append(config) or other)
    kept = range_test(config, folder)
    assert (kept.found, kept.seconds, made) == (first.found, first.seconds, [])
    for unusable in ('{"rates": [1]}', "{"):
        (folder / "lr_find.json").write_text(unusable)
        assert range_test(config, folder) is other
    assert range_test(config, folder).seconds == 2.0
    assert len(made) == 2


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameters_are_those_of_our_networks(name: str) -> None:
    assert layers(RECIPES[name]().model)[0].parameters == PARAMETERS[name]


def test_runs_of_several_revisions(config: Config, finished: Any) -> None:
    runs = [figures(config.runs / "copy", finished.record | {"code_revision": revision}) for revision in ("a1", "b2")]
    result = summarise({"system_b": runs}, Options(runs=2))
    assert result["code_revision"] == "several"
    rows = {name: cells for name, *cells in beside(result, "system_b")[1]}
    assert rows["n"] == ["-", "2"]
    assert rows["code revision"] == ["-", "a1; b2"]
    assert "a1" in reproduce._line("system_b", runs[0])
    same = figures(config.runs / "copy", finished.record | {"code_revision": code_revision()})
    assert "revision" not in reproduce._line("system_b", same)


def test_a_page_for_each_system(
    config: Config, finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = figures(config.runs / "copy", finished.record)
    failed = {"seed": 0, "failed": True, "epochs": 1}
    monkeypatch.setattr(reproduce, "_finished", lambda config: failed if config.recipe == "system_c" else ran)
    monkeypatch.setattr(reproduce, "build_page", lambda result, config, steps: f"{config.recipe} {steps}")
    arguments = ["--systems", "b,c", "--epochs", "1", "--data", str(config.data), "--folder", str(tmp_path)]
    main([*arguments, "--out", str(tmp_path / "x.json"), "--report"])
    assert (tmp_path / "system_b-e1.html").read_text() == "system_b 4"
    assert [path.name for path in tmp_path.glob("*.html")] == ["system_b-e1.html"]
    printed = capsys.readouterr().out.splitlines()
    assert f"wrote {tmp_path / 'system_b-e1.html'}" in printed
    assert printed[-1].startswith("{")
