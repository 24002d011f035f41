"""`python -m fastcifar.evaluate`: a run's figures again from its files, and files that were changed."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastcifar.data.beton import write_set
from fastcifar.data.synthetic import synthetic_set
from fastcifar.engine.bundle import load_bundle
from fastcifar.evaluate import measure, table

Command = Callable[..., Any]


@pytest.fixture
def copy(finished: Any, tmp_path: Path) -> Path:
    """The finished run, to be spoilt."""
    return shutil.copytree(finished.folder, tmp_path / "runs" / "copy")


def test_figures_equal_those_of_the_record(finished: Any) -> None:
    result = measure(load_bundle(finished.folder), finished.config.data)
    record = finished.record
    assert (result["plain"], result["mirrored"]) == (record["test_accuracy"], record["test_accuracy_tta"])
    assert (result["dataset"], result["samples"]) == ("synthetic", 200)
    assert list(result["per_class"]) == record["class_names"]
    assert all(samples == 20 for *_, samples in result["per_class"].values())
    for column, whole in ((0, "plain"), (1, "mirrored")):
        mean = sum(figures[column] for figures in result["per_class"].values()) / 10
        assert mean == pytest.approx(result[whole])


def test_the_table(finished: Any, command: Command) -> None:
    done = command("evaluate", finished.folder)
    assert (done.code, done.err) == (0, "")
    head, *rows = done.out.splitlines()
    assert head == "class         pictures  one view  mirrored views"
    assert [row.split()[0] for row in rows] == [*finished.record["class_names"], "all"]
    assert all(row.endswith("%  [synthetic data, not CIFAR-10]") for row in rows)
    found = re.findall(r"[\d.]+%", rows[-1])
    assert found == [f"{finished.record[name]:.2%}" for name in ("test_accuracy", "test_accuracy_tta")]


def test_real_data_is_not_marked() -> None:
    result = {"dataset": "cifar10", "plain": 0.9, "mirrored": 0.91, "samples": 10000, "per_class": {}}
    result["per_class"] = {"airplane": [0.9, 0.91, 10000]}
    assert table(result).splitlines() == [
        "class     pictures  one view  mirrored views",
        "airplane     10000    90.00%          91.00%",
        "all          10000    90.00%          91.00%",
    ]


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
    assert text.startswith(f"{tmp_path / 'other'} has the classes a, b, c, d, e, f, g, h, i, j, the run was trained on")
    assert text.endswith("; name the right data with --data")


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
