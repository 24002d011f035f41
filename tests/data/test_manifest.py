"""The manifest: what is written is read back, and nonsense is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from fastcifar.data.prepared import load_manifest
from fastcifar.errors import UserError


def test_it_describes_the_set(prepared: Path) -> None:
    manifest = load_manifest(prepared)
    assert manifest.format_version == 1
    assert manifest.dataset == "synthetic"
    assert len(manifest.class_names) == 10
    assert manifest.splits["train"].file == "train.beton"
    assert (manifest.splits["train"].samples, manifest.splits["test"].samples) == (230, 50)
    assert manifest.splits["test"].bytes == (prepared / "test.beton").stat().st_size
    assert (manifest.source.kind, manifest.source.seed, manifest.source.checksum) == ("synthetic", 3, None)
    assert str(prepared) not in (prepared / "manifest.json").read_text()


NONSENSE: list[tuple[str, Any, str]] = [
    ("format_version", 2, "format_version is 2, expected 1"),
    ("dataset", "mnist", "dataset is 'mnist', expected one of cifar10, synthetic, custom"),
    ("class_names", ["a", "a"], "class_names is ['a', 'a'], expected a list of at least two different names"),
    ("class_names", [1, 2], "class_names is [1, 2]"),
    ("mean_01", [0.5, 0.5], "mean_01 is [0.5, 0.5], expected three numbers in 0..1"),
    ("mean_01", [125.3, 122.9, 113.8], "mean_01 is [125.3, 122.9, 113.8], expected three numbers in 0..1"),
    ("mean_01", [True, 0.5, 0.5], "mean_01 is [True, 0.5, 0.5]"),
    ("std_01", [0.2, 0.0, 0.2], "std_01 is [0.2, 0.0, 0.2], expected three numbers above 0"),
    ("std_01", [0.2, float("nan"), 0.2], "std_01 is [0.2, nan, 0.2]"),
    ("splits", {"train": {}}, "expected the keys train and test"),
    ("splits.train.file", "../train.beton", "splits.train.file is '../train.beton', expected train.beton"),
    ("splits.train.sha256", "abc", "splits.train.sha256 is 'abc', expected 64 hexadecimal digits"),
    ("splits.test.bytes", -1, "splits.test.bytes is -1, expected a whole number above 0"),
    ("splits.test.samples", 1.5, "splits.test.samples is 1.5, expected a whole number above 0"),
    ("source", None, "source is None, expected an object"),
    ("source.kind", [], "source.kind is [], expected one of"),
    ("source.name", "/home/me/cifar", "source.name is '/home/me/cifar', expected a file name without a folder"),
    ("source.checksum", 5, "source.checksum is 5, expected a text or null"),
    ("source.seed", "3", "source.seed is '3', expected a whole number in 0..2**63-1 or null"),
    ("content_sha256", None, "content_sha256 is None, expected 64 hexadecimal digits"),
    ("fastcifar_version", 1, "fastcifar_version is 1, expected a text"),
    ("extra", 1, "field extra is unknown"),
]


@pytest.mark.parametrize(("field", "value", "text"), NONSENSE)
def test_nonsense_is_named(field: str, value: Any, text: str, prepared: Path) -> None:
    path = prepared / "manifest.json"
    content = json.loads(path.read_text())
    *outer, last = field.split(".")
    place = content
    for name in outer:
        place = place[name]
    place[last] = value
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        load_manifest(prepared)
    assert text in str(caught.value)
    assert str(path) in str(caught.value)
    assert "python -m fastcifar.prepare --force" in str(caught.value)


def test_a_missing_field_is_named(prepared: Path) -> None:
    path = prepared / "manifest.json"
    content = json.loads(path.read_text())
    del content["splits"]["test"]["sha256"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"field splits\.test\.sha256 is missing"):
        load_manifest(prepared)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_no_json(content: bytes, prepared: Path) -> None:
    (prepared / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match="is not JSON"):
        load_manifest(prepared)


def test_no_object(prepared: Path) -> None:
    (prepared / "manifest.json").write_text("[]")
    with pytest.raises(UserError, match="expected an object"):
        load_manifest(prepared)


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no prepared data in .*run `python -m fastcifar\.prepare`"):
        load_manifest(tmp_path / "nowhere")
