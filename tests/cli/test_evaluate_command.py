"""`fastcifar evaluate`: a run's figures again from its files, and files that were changed."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fastcifar.analysis.evaluation import evaluate_run, summarise
from fastcifar.data.prepared import write_set
from fastcifar.data.sources.synthetic import synthetic_set
from fastcifar.runs.load import load_run

Command = Callable[..., Any]


@pytest.fixture
def copy(finished: Any, tmp_path: Path) -> Path:
    """The finished run, to be spoilt."""
    return shutil.copytree(finished.folder, tmp_path / "runs" / "copy")


def test_figures_equal_those_of_the_record(finished: Any) -> None:
    summary = summarise(evaluate_run(load_run(finished.folder), finished.config.data))
    record, views = finished.record, summary["views"]
    assert views["single_view"]["accuracy"]["value"] == record["test_accuracy"]
    assert views["flip_tta"]["accuracy"]["value"] == record["test_accuracy_tta"]
    assert (summary["dataset"], summary["samples"], summary["primary_metric"]) == ("synthetic", 200, "flip_tta")
    for view in views.values():
        assert list(view["per_class"]) == record["class_names"] == summary["class_names"]
        assert all(figures["samples"] == 20 for figures in view["per_class"].values())
        mean = sum(figures["value"] for figures in view["per_class"].values()) / 10
        assert mean == pytest.approx(view["accuracy"]["value"])
        assert sum(map(sum, view["confusion_matrix"])) == 200


def test_the_table(copy: Path, finished: Any, command: Command) -> None:
    done = command("evaluate", copy)
    assert done.code == 0
    assert done.err.startswith("evaluation  400/400 views (100%)")
    head, *rows, note = done.out.split("\n\n")[0].splitlines()
    assert head.split()[:2] == ["class", "images"]
    assert head.endswith(" (primary metric)")
    assert "95%" in note
    assert [row.split()[0] for row in rows] == [*finished.record["class_names"], "all"]
    assert all(row.endswith("]  [synthetic data, not CIFAR-10]") for row in rows)
    found = re.findall(r"[\d.]+%", rows[-1])
    assert found == [f"{finished.record[name]:.2%}" for name in ("test_accuracy", "test_accuracy_tta")]
    assert done.out.endswith(f"\n\nwritten to {copy}: evaluation.json, confusion.png, reliability.png\n")


def test_what_is_written(copy: Path, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "new" / "folder"
    before = sorted(copy.iterdir())
    assert command("evaluate", copy, "--out", out).code == 0
    assert sorted(copy.iterdir()) == before
    assert sorted(path.name for path in out.iterdir()) == ["confusion.png", "evaluation.json", "reliability.png"]
    summary = json.loads((out / "evaluation.json").read_text())
    assert summary == summarise(evaluate_run(load_run(copy)))
    first = (out / "evaluation.json").read_bytes()
    assert command("evaluate", copy, "--out", out).code == 0
    assert (out / "evaluation.json").read_bytes() == first


def test_galleries(copy: Path, command: Command) -> None:
    done = command("evaluate", copy, "--galleries", "--layer", "blocks.0")
    assert done.code == 0
    assert "galleries  5/5 figures (100%)" in done.err
    facts = json.loads((copy / "galleries.json").read_text())
    evaluation = evaluate_run(load_run(copy))
    wrong = int((evaluation.primary_logits.argmax(1) != evaluation.labels).sum())
    assert len(facts["wrong"]) == min(25, wrong)
    assert len(facts["correct"]) == 25
    for kind in ("wrong", "correct"):
        assert facts["grad_cam"][kind]["layer"] == "blocks.0"
        assert facts["grad_cam"][kind]["feature_map_size"] == [15, 15]
        for name in (f"gallery-{kind}.png", f"grad-cam-{kind}.png", "gallery-classes.png"):
            with Image.open(copy / name) as image:
                image.load()
    assert not list(copy.glob(".*.part"))


def test_what_cannot_be_written_or_explained(copy: Path, tmp_path: Path, command: Command) -> None:
    file = tmp_path / "file"
    file.touch()
    done = command("evaluate", copy, "--out", file)
    assert done.code == 2
    assert done.err.splitlines()[-1] == f"error: cannot write into {file}: File exists; choose another --out"
    assert command("evaluate", copy, "--layer", "blocks.0").refused() == (
        "--layer blocks.0 is that of Grad-CAM; add --galleries"
    )
    text = command("evaluate", copy, "--galleries", "--layer", "block").refused()
    assert text.startswith("the network has no layer 'block': choose one of stem, blocks, blocks.0, ")


def test_the_latest_run_and_other_data(copy: Path, small_data: Path, command: Command) -> None:
    named = command("evaluate", "copy", "--runs", copy.parent)
    assert named.code == 0
    assert command("evaluate", "--runs", copy.parent).out == named.out
    assert command("evaluate", copy, "--data", small_data).out == named.out


def test_data_with_other_classes(finished: Any, tmp_path: Path, command: Command) -> None:
    raw = synthetic_set(train=20, test=10)
    object.__setattr__(raw, "class_names", tuple("abcdefghij"))
    write_set(raw, tmp_path / "other")
    text = command("evaluate", finished.folder, "--data", tmp_path / "other").refused()
    assert text.startswith(f"{tmp_path / 'other'} has the classes a, b, c, d, e, f, g, h, i, j, ")
    assert "--data" in text


def test_tampered_weights(copy: Path, command: Command) -> None:
    path = copy / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    assert command("evaluate", copy).refused() == (
        f"{path} does not hold the weights of its record: their SHA-256 differs; train again"
    )


@pytest.mark.parametrize("content", [b"", b"\x10\0\0\0\0\0\0\0nonsense", None])
def test_weights_that_cannot_be_read(content: bytes | None, copy: Path, command: Command) -> None:
    path = copy / "weights.safetensors"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert command("evaluate", copy).refused().startswith(f"cannot read the weights {path}: ")


def test_weights_of_another_network(copy: Path, command: Command) -> None:
    path = copy / "config.toml"
    path.write_text(path.read_text().replace("widths = [16, 32, 32]", "widths = [16, 32, 24]"))
    text = command("evaluate", copy).refused()
    assert text.startswith(f"{copy / 'weights.safetensors'} does not fit the network of {path}: ")


def test_a_run_without_its_config(copy: Path, command: Command) -> None:
    (copy / "config.toml").unlink()
    text = command("evaluate", copy).refused()
    assert text.startswith(f"cannot read the configuration {copy / 'config.toml'}: No such file or directory")


def test_a_record_of_something_else(copy: Path, command: Command) -> None:
    (copy / "record.json").write_text(json.dumps({"seed": 1}))
    text = command("evaluate", copy).refused()
    assert text == f"{copy / 'record.json'} lacks class_names, mean_01, std_01, dataset; train again"


def test_no_such_run(tmp_path: Path, command: Command) -> None:
    text = command("evaluate", "nix", "--runs", tmp_path).refused()
    assert text == f"no run is called nix, neither as a path nor in {tmp_path}"
    text = command("evaluate", tmp_path).refused()
    assert text == f"{tmp_path} holds no finished run: {tmp_path / 'record.json'} is missing"
