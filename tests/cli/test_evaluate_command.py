"""`fastcifar evaluate`: the same accuracies as in the record, files, and runs that were changed."""

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
from fastcifar.runtime import device

Command = Callable[..., Any]
FILES = {"evaluation.json", "confusion.png", "reliability.png"}


@pytest.fixture
def copy(finished: Any, tmp_path: Path) -> Path:
    """A copy of the finished run that may be changed."""
    return shutil.copytree(finished.folder, tmp_path / "runs" / "copy")


def test_table_and_files(copy: Path, finished: Any, small_data: Path, tmp_path: Path, command: Command) -> None:
    out, before = tmp_path / "new" / "folder", sorted(copy.iterdir())
    done = command("evaluate", "--runs", copy.parent, "--out", out, "--data", small_data)
    assert done.code == 0
    assert sorted(copy.iterdir()) == before
    assert {path.name for path in out.iterdir()} == FILES
    assert all(name in done.out.splitlines()[-1] for name in (*FILES, str(out)))
    _, *rows, _ = done.out.split("\n\n")[0].splitlines()
    assert [row.split()[0] for row in rows] == [*finished.record["class_names"], "all"]
    assert all(row.endswith("  [synthetic data, not CIFAR-10]") for row in rows)
    accuracies = [f"{finished.record[name]:.2%}" for name in ("test_accuracy", "test_accuracy_tta")]
    assert re.findall(r"[\d.]+%", rows[-1]) == accuracies
    summary = json.loads((out / "evaluation.json").read_text())
    assert summary == summarise(evaluate_run(load_run(copy)))
    assert (summary["dataset"], summary["samples"]) == ("synthetic", 200)
    for view in summary["views"].values():
        assert list(view["per_class"]) == finished.record["class_names"]
        assert all(figures["samples"] == 20 for figures in view["per_class"].values())
        assert sum(map(sum, view["confusion_matrix"])) == 200


def test_galleries(copy: Path, command: Command) -> None:
    assert command("evaluate", "copy", "--runs", copy.parent, "--galleries", "--layer", "blocks.0").code == 0
    names = {"galleries.json", "gallery-classes.png", "gallery-wrong.png", "grad-cam-wrong.png"}
    assert names | FILES <= {path.name for path in copy.iterdir()}
    for path in copy.glob("*.png"):
        with Image.open(path) as image:
            image.load()
    facts = json.loads((copy / "galleries.json").read_text())
    predictions = evaluate_run(load_run(copy))
    wrong = int((predictions.primary_logits.argmax(1) != predictions.labels).sum())
    assert len(facts["wrong"]) == min(25, wrong)
    assert facts["grad_cam"]["wrong"]["layer"] == "blocks.0"
    assert not list(copy.glob(".*.part"))


def test_mistakes(copy: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "file").touch()
    done = command("evaluate", copy, "--out", tmp_path / "file")
    assert done.code == 2
    assert f"{tmp_path / 'file'}: File exists" in done.err.splitlines()[-1]
    assert "--layer blocks.0" in command("evaluate", copy, "--layer", "blocks.0").refused()
    assert "'block'" in command("evaluate", copy, "--galleries", "--layer", "block").refused()
    assert "nix" in command("evaluate", "nix", "--runs", tmp_path).refused()
    assert str(tmp_path / "record.json") in command("evaluate", tmp_path).refused()
    assert str(tmp_path) in command("evaluate", "--runs", tmp_path).refused()


def test_data_with_other_classes(finished: Any, tmp_path: Path, command: Command) -> None:
    raw = synthetic_set(train=20, test=10)
    object.__setattr__(raw, "class_names", tuple("abcdefghij"))
    write_set(raw, tmp_path / "other")
    refused = command("evaluate", finished.folder, "--data", tmp_path / "other").refused()
    assert f"{tmp_path / 'other'} has the classes a, b, c, d, e, f, g, h, i, j" in refused


def flip_a_bit(run: Path) -> None:
    content = bytearray((run / "weights.safetensors").read_bytes())
    content[-100] ^= 1
    (run / "weights.safetensors").write_bytes(content)


def narrow(run: Path) -> None:
    path = run / "config.toml"
    path.write_text(path.read_text().replace("widths = [16, 32, 32]", "widths = [16, 32, 24]"))


@pytest.mark.parametrize(
    ("damage", "file", "shown"),
    [
        (flip_a_bit, "weights.safetensors", "SHA-256"),
        (lambda run: (run / "weights.safetensors").unlink(), "weights.safetensors", ""),
        (lambda run: (run / "weights.safetensors").write_bytes(b""), "weights.safetensors", ""),
        (lambda run: (run / "weights.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0x"), "weights.safetensors", ""),
        (narrow, "weights.safetensors", "config.toml"),
        (lambda run: (run / "config.toml").unlink(), "config.toml", "No such file"),
        (lambda run: (run / "record.json").write_text('{"seed": 1}'), "record.json", "class_names"),
    ],
)
def test_a_damaged_run(damage: Callable[[Path], object], file: str, shown: str, copy: Path, command: Command) -> None:
    damage(copy)
    refused = command("evaluate", copy).refused()
    assert str(copy / file) in refused
    assert shown in refused


@pytest.mark.parametrize("kernels", ["winograd-fp16", "amx"])
def test_a_run_of_a_cpu_with_kernels_that_this_one_lacks(
    kernels: str, copy: Path, finished: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy / "config.toml"
    path.write_text(path.read_text().replace('cpu_kernels = "torch"', f'cpu_kernels = "{kernels}"'))
    monkeypatch.setattr(device, "cpu_facts", lambda: ("", frozenset({"avx2"})))
    expected, found = (evaluate_run(load_run(folder)).primary_logits for folder in (finished.folder, copy))
    assert (found == expected).all()
