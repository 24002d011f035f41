"""The manifest: what is written is read back, and an invalid value is named."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fastcifar.data.prepared import load_manifest
from fastcifar.errors import UserError


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A folder with a manifest that a test may change, and no betons."""
    shutil.copy(written / "manifest.json", tmp_path)
    return tmp_path


def test_it_describes_the_set(written: Path) -> None:
    manifest = load_manifest(written)
    assert manifest.format_version == 1
    assert manifest.dataset == "synthetic"
    assert len(manifest.class_names) == 10
    assert manifest.splits["train"].file == "train.beton"
    assert (manifest.splits["train"].samples, manifest.splits["test"].samples) == (230, 50)
    assert manifest.splits["test"].bytes == (written / "test.beton").stat().st_size
    assert (manifest.source.kind, manifest.source.seed, manifest.source.checksum) == ("synthetic", 3, None)
    assert str(written) not in (written / "manifest.json").read_text()


INVALID: list[tuple[str, Any, str]] = [
    ("format_version", 2, "2"),
    ("dataset", "mnist", "mnist"),
    ("class_names", ["a", "a"], "['a', 'a']"),
    ("class_names", [1, 2], "[1, 2]"),
    ("mean_01", [0.5, 0.5], "[0.5, 0.5]"),
    ("mean_01", [125.3, 122.9, 113.8], "125.3"),
    ("mean_01", [True, 0.5, 0.5], "True"),
    ("std_01", [0.2, 0.0, 0.2], "0.0"),
    ("std_01", [0.2, float("nan"), 0.2], "nan"),
    ("splits", {"train": {}}, "train"),
    ("splits.train.file", "../train.beton", "../train.beton"),
    ("splits.train.sha256", "abc", "abc"),
    ("splits.test.bytes", -1, "-1"),
    ("splits.test.samples", 1.5, "1.5"),
    ("source", None, "None"),
    ("source.kind", [], "[]"),
    ("source.name", "/home/me/cifar", "/home/me/cifar"),
    ("source.checksum", 5, "5"),
    ("source.seed", "3", "'3'"),
    ("content_sha256", None, "None"),
    ("fastcifar_version", 1, "1"),
    ("extra", 1, "unknown"),
]


@pytest.mark.parametrize(("field", "value", "shown"), INVALID)
def test_an_invalid_field_is_named(field: str, value: Any, shown: str, folder: Path) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    *outer, last = field.split(".")
    parent = content
    for name in outer:
        parent = parent[name]
    parent[last] = value
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        load_manifest(folder)
    assert all(text in str(caught.value) for text in (str(path), field, shown, "fastcifar prepare --force"))


def test_a_missing_field_is_named(folder: Path) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    del content["splits"]["test"]["sha256"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"splits\.test\.sha256 is missing"):
        load_manifest(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]"])
def test_a_file_that_is_no_json_object_is_refused(content: bytes, folder: Path) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=r"manifest\.json"):
        load_manifest(folder)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.*fastcifar prepare"):
        load_manifest(tmp_path / "nowhere")
