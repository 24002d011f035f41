"""Parts of the report: grouping of runs, charts as SVG, colours of the theme, image tiles."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastcifar.analysis.curves import Curves
from fastcifar.analysis.evaluation import Evaluation
from fastcifar.analysis.report.charts import comparison_charts, training_charts
from fastcifar.analysis.report.comparison import Member, differences, groups
from fastcifar.analysis.report.facts import disagreement
from fastcifar.analysis.report.images import heat_uri, png_uri
from fastcifar.analysis.report.svg import THEME, inline_svg

CSS = Path(__file__).parents[2] / "fastcifar" / "analysis" / "report" / "templates" / "report.css"


def member(finished: Any, number: int, **changes: Any) -> Member:
    return Member(number, Path(f"run-{number}"), finished.record | changes, finished.config)


def test_groups_and_differences(finished: Any) -> None:
    first, again = member(finished, 1), member(finished, 2)
    fast = member(finished, 3, weights_sha256="1", hardware={"gpu": "X"}, test_accuracy=1.0)
    (group,) = groups([first, again, fast])
    assert [run.number for run in group.distinct] == [1, 3]
    assert group.single.mean == (finished.record["test_accuracy"] + 1) / 2
    assert group.clocks == dict.fromkeys(("train_s", "run_s", "process_s"))
    (pair,) = groups([first, again])
    assert pair.clocks["train_s"] == finished.record["clock"]["train_s"]
    assert pair.single.half_width is None
    assert [name for name, _ in differences([first, fast])] == ["GPU", "CPU"]
    assert differences([first, again]) == []
    assert len(groups([first, member(finished, 2, dataset_sha256="other")])) == 2
    assert len(groups([first, replace(again, config=replace(finished.config, seed=9))])) == 1


def test_disagreement_with_the_record() -> None:
    logits = {"single_view": np.eye(4), "flip_tta": np.eye(4)[[0, 1, 2, 2]]}
    evaluation = Evaluation(list("abcd"), "custom", "flip_tta", np.arange(4), logits)
    record = {"test_accuracy": 1.0, "test_accuracy_tta": 0.75, "test_samples": 4}
    assert disagreement(record, evaluation) == ""
    text = disagreement(record | {"test_accuracy_tta": 0.5}, evaluation)
    assert {"100.00%", "75.00%", "50.00%"} <= set(text.split())
    assert disagreement(record | {"test_samples": 5}, evaluation)


@pytest.mark.parametrize("steps", [2, 30_000])
def test_charts_are_small_and_use_the_theme(steps: int) -> None:
    values = np.linspace(1, 0, steps)
    epochs: list[dict[str, Any]] = [{"epoch": epoch, "loss": 0.5, "train_accuracy": 0.5} for epoch in (1, 2)]
    curves = Curves(
        steps // 2,
        2 * (1 - values),
        values,
        1 - values,
        {"a": values, "b": values},
        {"a": values},
        epochs,
        [(1.0, 0.4), (2.0, 0.6)],
        [],
    )
    figures = [*training_charts(curves, {"evaluation": "flip_tta", "test_accuracy_tta": 0.7}).values()]
    figures += comparison_charts({f"run {number}": curves for number in range(1, 9)})
    for number, figure in enumerate(figures):
        svg = inline_svg(figure, f"key{number}", 'a "label" & more')
        assert 'aria-label="a &#34;label&#34; &amp; more"' in svg
        assert "url(http" not in svg
        assert len(svg) < 400_000
        assert re.findall(r"#[0-9a-f]{6}", svg) == []
        HTMLParser().feed(svg)


def test_theme_has_enough_contrast() -> None:
    """The CSS defines every colour of the charts for light and for dark, with the contrast that WCAG 2.2 demands."""
    blocks = re.split("@media screen", CSS.read_text())[:2]
    for colours in (dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6})", block)) for block in blocks):
        assert set(THEME.values()) <= set(colours)
        pairs = {*product(("ink", "soft", "accent", "wrong", "correct", "warn"), ("paper", "panel"))}
        for text, ground in pairs | {("warn", "warn-panel"), ("ink", "warn-panel")}:
            assert contrast(colours[f"--{text}"], colours[f"--{ground}"]) >= 4.5, (text, ground)
        for line in ("blue", "red", "green", "purple", "orange", "line", "grey", "point"):
            assert contrast(colours[f"--{line}"], colours["--paper"]) >= 3, line


def contrast(first: str, second: str) -> float:
    """(L1 + 0.05) / (L2 + 0.05) of the relative luminances, by WCAG 2.2."""
    bright, faint = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (faint + 0.05)


def luminance(colour: str) -> float:
    channels = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def test_image_uris() -> None:
    def decoded(uri: str) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))

    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert (decoded(png_uri(image)) == image).all()
    heat = np.zeros((32, 32))
    heat[8:16, 8:16] = 1
    white = (decoded(heat_uri(image, heat)) == 255).all(2)
    assert white.sum() == 4 * 8 * 4 - 4  # the border of a square of 8 pixels, each enlarged to 4
    assert white[32, 32:64].all()
