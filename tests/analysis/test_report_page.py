"""The report page: complete, self-contained, well-formed, and safe against hostile texts in a run."""

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

import pytest
from matplotlib.figure import Figure
from PIL import Image

from fastcifar.analysis.report import page as report_page
from fastcifar.analysis.report.page import build_report
from fastcifar.analysis.report.section import Section
from fastcifar.errors import UserError
from fastcifar.evaluation import title_of

HOSTILE = """<img src=x onerror=alert(1)>"'&{{ 7*7 }}</script>"""
CLOCK = {"train_s": 1.3, "run_s": 12.5, "process_s": 1234.0}
VOID = {"meta", "img", "br", "hr", "link", "input"}
SECTIONS = [
    *("result", "training", "classes", "calibration", "wrong", "correct", "grad-cam", "failures"),
    *("network", "configuration", "environment"),
]


class Page(HTMLParser):
    """Checks the nesting of the tags; collects tags, headings, ids and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []
        self.headings = [int(tag[1]) for tag, _ in self.tags if re.fullmatch(r"h[1-6]", tag)]
        self.ids = [value for _, attributes in self.tags if (value := attributes.get("id"))]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), attrs
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data + "\n"  # the texts of two elements are two words

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def copy_with(finished: Any, target: Path, **changes: Any) -> Path:
    """A copy of the run with another record."""
    shutil.copytree(finished.folder, target)
    (target / "record.json").write_text(json.dumps(finished.record | changes))
    return target


def change_config(folder: Path, old: str, new: str) -> None:
    path = folder / "config.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


@pytest.fixture(scope="module")
def run(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run with clocks that do not depend on this machine."""
    return copy_with(finished, tmp_path_factory.mktemp("first") / "run", clock=CLOCK)


@pytest.fixture(scope="module")
def second(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the same settings with another seed, whose accuracy is 10 points lower."""
    lower = finished.record["test_accuracy_tta"] - 0.1
    folder = tmp_path_factory.mktemp("second") / "other-seed"
    copy_with(finished, folder, seed=1, weights_sha256="1" * 64, test_accuracy_tta=lower)
    change_config(folder, "seed = 0", "seed = 1")
    return folder


@pytest.fixture(scope="module")
def without_data(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run, whose prepared data is gone; a page about it is made quickly."""
    folder = copy_with(finished, tmp_path_factory.mktemp("without_data") / "run")
    change_config(folder, str(finished.config.data), str(folder.parent / "gone"))
    return folder


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    return build_report([run])


def test_page_is_complete(html: str, finished: Any) -> None:
    page, record = Page(html), finished.record
    assert html.startswith("<!DOCTYPE html>\n")
    assert [value for value in page.ids if value in SECTIONS] == SECTIONS
    for key in ("test_accuracy", "test_accuracy_tta"):
        assert f"{record[key]:.2%}" in page.text
    assert page.text.count("primary metric\n") == 1
    for seconds in ("1.3 s", "12.5 s", "1,234 s"):
        assert f"\n{seconds}\n" in page.text
    assert len([svg for svg in page.all("svg") if svg.get("role") == "img" and svg.get("aria-label")]) == 4
    words = set(re.split(r"\s+", page.text))
    assert {*record["class_names"], record["weights_sha256"], record["dataset_sha256"]} <= words
    assert 'kind = "speed"' in page.text
    assert f"{record['parameters']:,}" in page.text


def test_measurements_of_synthetic_data_are_marked(html: str) -> None:
    shown = re.findall(r"<(h1|h2|caption|figcaption|title)[^>]*>(.*?)</\1>", html, re.DOTALL)
    without = [text for _, text in shown if "synthetic data, not CIFAR-10" not in text]
    # not measured: planned rates, layers, configuration, environment; captions of single images need no mark
    allowed = r"planned by|^Network|^Layers|^Configuration|^Environment|^Versions|^no\. \d+$|^\w* ?\w+ [\d.]+%$"
    assert [text for text in without if not re.search(allowed, text)] == []


def test_page_loads_nothing(html: str) -> None:
    assert not re.search(r"https?://|@import", html)
    for tag, attributes in Page(html).tags:
        assert tag not in {"script", "link", "iframe", "object"}
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in {"src", "href", "xlink:href"}:
                assert str(value).startswith("data:image/png;base64," if name == "src" else "#"), value


def test_images_decode_and_have_alternative_texts(html: str) -> None:
    images = Page(html).all("img")
    assert len(images) > 25 + 25 * 2
    for image in images:
        assert image["alt"]
        content = base64.b64decode(str(image["src"]).removeprefix("data:image/png;base64,"), validate=True)
        with Image.open(io.BytesIO(content)) as decoded:
            decoded.load()
            assert decoded.size in {(32, 32), (128, 128)}
    assert len(html) < 5e6


def test_structure_is_accessible(html: str) -> None:
    page = Page(html)
    assert max(Counter(page.ids).values()) == 1
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', html)) <= set(page.ids)
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    assert all(cell.get("scope") in {"row", "col"} for cell in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert page.all("html")[0]["lang"] == "en"


def test_hostile_texts_are_escaped_in_a_run_with_selective_tta(
    finished: Any, run: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    names = [f"{number}{HOSTILE}$x^2$" for number in range(10)]
    hostile = copy_with(
        finished,
        tmp_path / "<b>run",
        recipe=HOSTILE,
        class_names=names,
        versions={HOSTILE: HOSTILE},
        hardware={"cpu": HOSTILE},
        system=HOSTILE,
        evaluation="selective_tta",
    )
    change_config(hostile, 'kind = "flip_tta"', 'kind = "selective_tta"')
    real = report_page.evaluate_run

    def with_names(trained: Any, data: Path | None) -> Any:
        known = trained.record | {"class_names": finished.record["class_names"]}
        return replace(real(replace(trained, record=known), data), class_names=names, dataset=HOSTILE)

    monkeypatch.setattr(report_page, "evaluate_run", with_names)
    made = build_report([hostile, run])
    page = Page(made)
    assert "<img src=x" not in made
    assert "</script>" not in made
    assert f"9{HOSTILE}$x^2$" in page.text
    assert page.text.count(HOSTILE) > 10
    assert "<b>run" in page.text
    assert f"test accuracy, {title_of('selective_tta')}" in page.text


def test_run_without_its_data(finished: Any, without_data: Path, second: Path, capsys: Any) -> None:
    page = Page(build_report([without_data, second]))
    gone = without_data.parent / "gone"
    assert str(gone) in capsys.readouterr().err
    assert str(gone) in page.text
    assert page.all("img") == []
    left_out = {"calibration", "wrong", "correct", "grad-cam", "failures"}
    assert [name for name in page.ids if name in SECTIONS] == [name for name in SECTIONS if name not in left_out]
    assert f"{finished.record['test_accuracy']:.2%}" in page.text
    assert "only the seeds differ" in page.text
    with pytest.raises(UserError, match="gone"):
        build_report([finished.folder], gone)


def test_added_sections(without_data: Path) -> None:
    figure = Figure()
    figure.subplots().set_title(HOSTILE)
    words = {"title": HOSTILE, "text": f"1{HOSTILE}", "caption": f"2{HOSTILE}", "header": ["", f"3{HOSTILE}"]}
    section = Section(key="more", **words, rows=[["row", f"4{HOSTILE}"]], charts={f"5{HOSTILE}": figure})
    made = build_report([without_data], sections=[section])
    page = Page(made)
    assert "<img src=x" not in made
    assert page.ids.index("result") < page.ids.index("more") < page.ids.index("training")
    assert {f"{number}{HOSTILE}" for number in range(1, 6)} <= set(map(str.strip, page.text.split("\n")))
    assert max(Counter(page.ids).values()) == 1


def test_page_is_reproducible(html: str, run: Path, finished: Any, tmp_path: Path) -> None:
    assert build_report([shutil.copytree(run, tmp_path / run.name)], finished.config.data) == html


def test_comparison(finished: Any, without_data: Path, second: Path, tmp_path: Path) -> None:
    other = copy_with(finished, tmp_path / "other", weights_sha256="0" * 64)
    change_config(other, "label_smoothing = 0.2", "label_smoothing = 0.1")
    made = build_report([without_data, second, other])
    page = Page(made)
    mean = 100 * finished.record["test_accuracy_tta"] - 5
    assert f"{mean:.2f}% ± 63.53" in page.text  # t of one degree of freedom times 10 / 2
    assert "A single run has no interval" in page.text
    assert re.search(r'<th scope="row">label_smoothing</th><td>0.2</td><td>0.2</td><td>0.1</td>', made)
    assert {without_data.name, second.name, other.name} <= set(page.text.split())
    assert max(Counter(page.ids).values()) == 1


def test_refusals(finished: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run"):
        build_report([])
    with pytest.raises(UserError, match="twice"):
        build_report([finished.folder, finished.folder])
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        build_report([tmp_path])
    path = copy_with(finished, tmp_path / "copy")
    for changes, name in (({"steps": None}, "steps"), ({"clock": {"run_s": "fast"}}, r"clock\.run_s")):
        (path / "record.json").write_text(json.dumps(finished.record | changes))
        with pytest.raises(UserError, match=rf"record\.json .*{name}"):
            build_report([path])
    (path / "record.json").write_text(json.dumps(finished.record))
    for text in ("", '{"kind": "step"}\n'):
        (path / "metrics.jsonl").write_text(text)
        with pytest.raises(UserError, match=r"metrics\.jsonl"):
            build_report([path])


def test_a_network_without_feature_maps_has_no_heat(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: Any, side: int) -> Any:
        raise UserError("no layer has <large> feature maps")

    monkeypatch.setattr("fastcifar.analysis.grad_cam.choose_layer", refuse)
    page = Page(build_report([run]))
    assert [value for value in page.ids if value in SECTIONS] == SECTIONS
    assert "no layer has <large> feature maps" in page.text
    assert "Correct predictions" not in page.text
