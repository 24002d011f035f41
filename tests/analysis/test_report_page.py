"""The report: all that it must show, nothing from outside, nothing that its texts could do to it."""

import base64
import io
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastcifar.analysis.report import page as report_page
from fastcifar.analysis.report.charts import Curves, accuracy_chart, comparison_charts, loss_chart, rate_chart
from fastcifar.analysis.report.comparison import Member, differences, groups
from fastcifar.analysis.report.images import heat_uri, png_uri
from fastcifar.analysis.report.page import build_report
from fastcifar.analysis.report.svg import THEME, inline_svg
from fastcifar.errors import UserError
from fastcifar.training.trainer import train

HOSTILE = """<img src=x onerror=alert(1)>"'&{{ 7*7 }}</script>"""
VOID = {"meta", "img", "br", "hr", "link", "input"}
SECTIONS = [
    *("result", "training", "classes", "calibration", "wrong", "right", "grad-cam", "failures"),
    *("network", "configuration", "environment"),
]


class Page(HTMLParser):
    """Checks the nesting while it reads; remembers ids, attributes and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[int] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), attrs
        self.tags.append((tag, dict(attrs)))
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data + "\n"  # what stands in two elements is two texts

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def ids(self) -> list[str]:
        return [value for _, attributes in self.tags if (value := attributes.get("id"))]


@pytest.fixture(scope="module")
def html(finished: Any) -> str:
    return build_report([finished.folder])


@pytest.fixture(scope="module")
def second(finished: Any) -> Path:
    """A run of the same settings and the same code with another seed."""
    folder, record = train(replace(finished.config, seed=1))
    code = {"code_revision": finished.record["code_revision"]}  # someone may have committed in between
    (folder / "record.json").write_text(json.dumps(record | code))
    return folder


def copy_with(finished: Any, target: Path, **changes: Any) -> Path:
    """The run with another record."""
    shutil.copytree(finished.folder, target)
    (target / "record.json").write_text(json.dumps(finished.record | changes))
    return target


def test_all_is_there(html: str, finished: Any) -> None:
    page, record = Page(html), finished.record
    assert html.startswith("<!DOCTYPE html>\n")
    assert [value for value in page.ids() if value in SECTIONS] == SECTIONS
    for figure in (f"{record['test_accuracy']:.2%}", f"{record['test_accuracy_tta']:.2%}", "this one counts"):
        assert figure in page.text
    for name in ("train", "run", "process"):
        assert f"{record['clock'][name + '_s']:.1f} s" in page.text
    assert len([svg for svg in page.all("svg") if svg.get("role") == "img" and svg.get("aria-label")]) == 5
    words = set(re.split(r"\s+", page.text))
    assert {*record["class_names"], record["weights_sha256"], record["dataset_sha256"]} <= words
    assert 'kind = "speed"' in page.text
    assert f"{record['parameters']:,}" in page.text


def test_figures_of_synthetic_data_are_marked(html: str) -> None:
    shown = re.findall(r"<(h1|h2|caption|figcaption|title)[^>]*>(.*?)</\1>", html, re.DOTALL)
    without = [text for _, text in shown if "synthetic data, not CIFAR-10" not in text]
    # what is left says nothing that was measured: the plan, the layers, the settings, the captions of single images
    allowed = r"What the configuration plans|^Network|^Layers with|^Configuration|^Environment|^What the run was made"
    assert [text for text in without if not re.search(allowed + r"|^no\. \d+$|^(said |is )?\w+ [\d.]+%$", text)] == []


def test_nothing_comes_from_outside(html: str) -> None:
    page = Page(html)
    assert not re.search(r"https?://", html)
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object"}
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in {"src", "href", "xlink:href"}:
                assert str(value).startswith("data:image/png;base64," if name == "src" else "#"), value
    assert "@import" not in html
    assert "url(http" not in html


def test_every_image_decodes_and_is_described(html: str) -> None:
    images = Page(html).all("img")
    assert len(images) > 25 + 25 * 2
    for image in images:
        assert image["alt"]
        content = base64.b64decode(str(image["src"]).removeprefix("data:image/png;base64,"), validate=True)
        with Image.open(io.BytesIO(content)) as decoded:
            decoded.load()
            assert decoded.size in {(32, 32), (128, 128)}
    assert len(html) < 5e6


def test_ids_are_unique_and_lead_somewhere(html: str) -> None:
    ids = Page(html).ids()
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', html)) <= set(ids)


def test_headings_and_tables_can_be_followed(html: str) -> None:
    page = Page(html)
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(next_level <= level + 1 for level, next_level in zip(page.headings, page.headings[1:], strict=False))
    assert all(cell.get("scope") in {"row", "col"} for cell in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert page.all("html")[0]["lang"] == "en"


def test_hostile_texts_stay_texts(finished: Any, tmp_path: Path, small_data: Path, monkeypatch: Any) -> None:
    names = [f"{number}{HOSTILE}$x^2$" for number in range(10)]
    hostile = copy_with(
        finished,
        tmp_path / "<b>run",
        recipe=HOSTILE,
        class_names=names,
        versions={HOSTILE: HOSTILE},
        hardware={"cpu": HOSTILE},
        system=HOSTILE,
    )
    real = report_page.evaluate_run

    def with_names(trained: Any, data: Path | None) -> Any:
        evaluation = real(
            replace(trained, record=trained.record | {"class_names": finished.record["class_names"]}), data
        )
        return replace(evaluation, class_names=names, dataset=HOSTILE)

    monkeypatch.setattr(report_page, "evaluate_run", with_names)
    made = build_report([hostile, finished.folder])
    assert "<img src=x" not in made
    assert "</script>" not in made
    assert f"9{HOSTILE}$x^2$" in Page(made).text
    assert Page(made).text.count(HOSTILE) > 10
    assert "<b>run" in Page(made).text


def test_without_the_data(finished: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = tmp_path / "gone"
    folder = copy_with(finished, tmp_path / "copy")
    config = folder / "config.toml"
    config.write_text(config.read_text().replace(str(finished.config.data), str(gone)))
    made = build_report([folder])
    page = Page(made)
    assert capsys.readouterr().err.startswith(f"without images: no prepared data in {gone}")
    assert f"could not be read: no prepared data in {gone}" in page.text
    assert page.all("img") == []
    assert [name for name in SECTIONS if name in page.ids()] == [
        *("result", "training", "classes", "network", "configuration", "environment")
    ]
    assert f"{finished.record['test_accuracy']:.2%}" in page.text
    with pytest.raises(UserError, match=r"^no prepared data in"):
        build_report([finished.folder], gone)


def test_the_same_run_gives_the_same_bytes_elsewhere(html: str, finished: Any, tmp_path: Path) -> None:
    again = build_report([copy_with(finished, tmp_path / finished.folder.name)], finished.config.data)
    assert again == html


def test_answers_that_are_not_those_of_the_record(html: str, finished: Any, tmp_path: Path) -> None:
    sentence = "The answers below were computed again for this page"
    assert sentence not in html
    other = copy_with(finished, tmp_path / "copy", test_accuracy=0.5)
    assert f"{sentence}: {finished.record['test_accuracy']:.2%} and " in build_report([other])


def test_two_runs_of_the_same_settings(finished: Any, second: Path) -> None:
    page = Page(build_report([finished.folder, second]))
    first, other = finished.record["test_accuracy_tta"], json.loads((second / "record.json").read_text())
    fractions = [100 * first, 100 * other["test_accuracy_tta"]]
    half = (
        12.7062 * abs(fractions[0] - fractions[1]) / 2
    )  # t of one degree of freedom; s / sqrt(2) is half the difference
    assert f"{sum(fractions) / 2:.2f}% ± {half:.2f}" in page.text
    assert "2 runs compared" in page.text
    assert "only the seeds differ" in page.text
    assert {finished.folder.name, second.name} <= set(page.text.split())
    assert [name for name, count in Counter(page.ids()).items() if count > 1] == []


def test_runs_of_other_settings(finished: Any, second: Path, tmp_path: Path) -> None:
    other = copy_with(finished, tmp_path / "other", weights_sha256="0" * 64)
    config = other / "config.toml"
    config.write_text(config.read_text().replace("label_smoothing = 0.2", "label_smoothing = 0.1"))
    made = build_report([finished.folder, second, other])
    assert re.search(r'<th scope="row">label_smoothing</th><td>0.2</td><td>0.2</td><td>0.1</td>', made)
    assert "A single run has no interval" in made


def member(finished: Any, number: int, **changes: Any) -> Member:
    return Member(number, Path(f"run-{number}"), finished.record | changes, finished.config)


def test_what_is_averaged(finished: Any) -> None:
    first = member(finished, 1)
    again, fast = member(finished, 2), member(finished, 3, weights_sha256="1", hardware={"gpu": "X"}, test_accuracy=1.0)
    (group,) = groups([first, again, fast])
    assert [run.number for run in group.distinct] == [1, 3]
    assert group.plain.mean == (finished.record["test_accuracy"] + 1) / 2
    assert group.clocks == dict.fromkeys(("train_s", "run_s", "process_s"))
    (pair,) = groups([first, again])
    assert pair.clocks["train_s"] == finished.record["clock"]["train_s"]
    assert pair.plain.half is None
    assert [name for name, _ in differences([first, fast])] == ["GPU", "CPU"]
    assert differences([first, again]) == []
    assert len(groups([first, member(finished, 2, dataset_sha256="other")])) == 2
    assert len(groups([first, replace(again, config=replace(finished.config, seed=9))])) == 1


def test_what_is_refused(finished: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^no run was named; give at least one$"):
        build_report([])
    with pytest.raises(UserError, match=r"^a run is named twice; a comparison needs different ones$"):
        build_report([finished.folder, finished.folder])
    with pytest.raises(UserError, match="holds no finished run"):
        build_report([tmp_path])
    path = copy_with(finished, tmp_path / "copy")
    for changes, lacking in (({"steps": None}, "steps"), ({"clock": {"run_s": "fast"}}, "clock.run_s")):
        (path / "record.json").write_text(json.dumps(finished.record | changes))
        with pytest.raises(UserError) as caught:
            build_report([path])
        assert str(caught.value).startswith(f"{path / 'record.json'} lacks ")
        assert lacking in str(caught.value)
    (path / "record.json").write_text(json.dumps(finished.record))
    for text, reason in (("", "holds no step"), ('{"kind": "step"}\n', "is not what a run writes")):
        (path / "metrics.jsonl").write_text(text)
        with pytest.raises(UserError, match=reason):
            build_report([path])


def curves(steps: int) -> Curves:
    values = np.linspace(1, 0, steps)
    epochs: list[dict[str, Any]] = [{"epoch": epoch, "loss": 0.5, "train_accuracy": 0.5} for epoch in (1, 2)]
    return Curves(steps // 2, 2 * (1 - values), values, 1 - values, values, epochs, [(1.0, 0.4), (2.0, 0.6)], [])


@pytest.mark.parametrize("steps", [2, 50, 30_000])
def test_charts_stay_small_and_within_the_theme(steps: int) -> None:
    some = curves(steps)
    figures = [loss_chart(some), accuracy_chart(some, 0.7, "mirrored views"), rate_chart(some)]
    figures += comparison_charts({f"run {number}": some for number in range(1, 9)})
    for number, figure in enumerate(figures):
        svg = inline_svg(figure, f"key{number}", 'a "label" & more')
        assert 'aria-label="a &#34;label&#34; &amp; more"' in svg
        assert "url(http" not in svg
        assert len(svg) < 400_000
        assert set(re.findall(r"#[0-9a-f]{6}", svg)) == set()
        Page(svg)


def test_the_theme_is_the_page_s() -> None:
    """Every colour of the charts is defined for light and for dark, and texts can be read on their ground."""
    css = (Path(report_page.__file__).parent / "templates" / "report.css").read_text()
    light, dark = (
        dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6})", block)) for block in re.split("@media screen", css)[:2]
    )
    for colours in (light, dark):
        assert set(THEME.values()) <= set(colours)
        for text in ("ink", "soft", "accent", "wrong", "right", "warn"):
            for ground in ("paper", "panel"):
                assert contrast(colours[f"--{text}"], colours[f"--{ground}"]) >= 4.5, (text, ground)
        assert contrast(colours["--warn"], colours["--warn-panel"]) >= 4.5
        assert contrast(colours["--ink"], colours["--warn-panel"]) >= 4.5
        for line in ("blue", "red", "green", "purple", "orange", "line", "grey", "point"):
            assert contrast(colours[f"--{line}"], colours["--paper"]) >= 3, line


def contrast(first: str, second: str) -> float:
    """By WCAG 2.2: (L1 + 0.05) / (L2 + 0.05) of the relative luminances."""
    bright, faint = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (faint + 0.05)


def luminance(colour: str) -> float:
    channels = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def test_images_keep_their_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert (decoded(png_uri(image)) == image).all()
    heat = np.zeros((32, 32))
    heat[8:16, 8:16] = 1
    large = decoded(heat_uri(image, heat))
    white = (large == 255).all(2)
    assert white.sum() == 4 * 8 * 4 - 4  # the border of a square of 8 pixels, each enlarged to 4
    assert white[32, 32:64].all()


def decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
