"""`fastcifar export`: the exported network has the same logits, and the model card is correct."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fastcifar.config import ModelConfig
from fastcifar.data.prepared import read_split
from fastcifar.errors import UserError
from fastcifar.export.classifier import classifier_of, load_classifier, metadata_of
from fastcifar.export.files import export
from fastcifar.models.build import build_model
from fastcifar.models.resnet import ResNetConfig
from fastcifar.models.resnet18 import ResNet18Config
from fastcifar.models.speednet import SpeedNetConfig
from fastcifar.runs.load import TrainedRun, load_run
from fastcifar.runs.record import weights_sha256

Command = Callable[..., Any]
TOLERANCE = 1e-4
needs_onnx = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="the extra `onnx` is not installed",
)


def logits_of(trained: TrainedRun, images: np.ndarray) -> torch.Tensor:
    rows = np.arange(len(images))
    with torch.inference_mode():
        return trained.model(trained.transform()(images, rows, rows, 0))


def card_code(folder: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (folder / "MODEL_CARD.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def exported(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    export(load_run(finished.folder), "safetensors", folder)
    return folder


def test_the_command(finished: Any, exported: Path, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "new" / "folder"
    done = command("export", finished.folder, "--out", out)
    assert (done.code, done.err) == (0, "")
    assert [line.split()[-1] for line in done.out.splitlines()] == [
        str(out / "model.safetensors"),
        str(out / "MODEL_CARD.md"),
    ]
    assert {path.name for path in out.iterdir()} == {"MODEL_CARD.md", "model.safetensors"}
    assert (out / "MODEL_CARD.md").read_text() == (exported / "MODEL_CARD.md").read_text()


def test_reloaded_logits_over_the_test_set(
    finished: Any, exported: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = read_split(small_data, "test")
    classifier = load_classifier(exported / "model.safetensors")
    with torch.inference_mode():
        logits = classifier(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    torch.testing.assert_close(logits, logits_of(load_run(finished.folder), images), rtol=TOLERANCE, atol=TOLERANCE)
    assert (logits.argmax(1).numpy() == labels).mean() == pytest.approx(finished.record["test_accuracy"])
    assert classifier.class_names == finished.record["class_names"]
    names: dict[str, Any] = {"images_nhwc": images}
    monkeypatch.chdir(exported)
    exec(card_code(exported)[1], names)
    assert len(names["names"]) == 200


def test_metadata_and_card(finished: Any, exported: Path) -> None:
    record = finished.record
    with safe_open(exported / "model.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert metadata == metadata_of(load_run(finished.folder))
    assert metadata["format"] == "fastcifar classifier 1"
    assert json.loads(metadata["classes"]) == record["class_names"]
    assert json.loads(metadata["mean_01"]) == record["mean_01"]
    assert json.loads(metadata["model"])["kind"] == "speed"
    assert (metadata["recipe"], metadata["dataset"]) == ("smoke", "synthetic")
    assert metadata["dataset_sha256"] == record["dataset_sha256"]
    card = (exported / "MODEL_CARD.md").read_text()
    facts = ("test_accuracy", "test_accuracy_tta")
    for fact in ("synthetic", record["weights_sha256"], *record["class_names"], f"{record['parameters']:,} parameters"):
        assert fact in card
    assert all(f"{record[name]:.2%}" in card for name in facts)


@pytest.mark.parametrize(
    "model", [ResNetConfig(width=4, conv_bias=True), ResNet18Config(), SpeedNetConfig(widths=(8,))]
)
def test_every_network(model: ModelConfig, finished: Any, tmp_path: Path) -> None:
    trained = load_run(finished.folder)
    network = build_model(model, 10, 5).eval()
    record = trained.record | {"weights_sha256": weights_sha256(network.state_dict())}
    trained = replace(trained, model=network, config=replace(trained.config, model=model), record=record)
    export(trained, "safetensors", tmp_path)
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found, expected = load_classifier(tmp_path / "model.safetensors")(x), classifier_of(trained)(x)
    torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


@needs_onnx
def test_onnx_runtime_gives_the_same_logits(
    finished: Any, tmp_path: Path, small_data: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx")  # an extra: a plain import would be an error to the type checker without it

    done = command("export", finished.folder, "--format", "onnx", "--out", tmp_path)
    assert done.code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"MODEL_CARD.md", "model.onnx"}
    model = onnx.load(tmp_path / "model.onnx")  # another reader than torch's
    onnx.checker.check_model(model)
    written = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata_of(load_run(finished.folder)).items() <= written.items()
    images, _ = read_split(small_data, "test")
    names: dict[str, Any] = {"images_nhwc": images}
    monkeypatch.chdir(tmp_path)
    exec(card_code(tmp_path)[0], names)
    expected = logits_of(load_run(finished.folder), images)
    torch.testing.assert_close(torch.from_numpy(names["logits"]), expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_what_cannot_be_exported(
    finished: Any, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastcifar.export.onnx.find_spec", lambda name: None)
    assert "onnxscript" in command("export", finished.folder, "--format", "onnx", "--out", tmp_path / "x").refused()
    assert not list(tmp_path.rglob("*"))
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "x"
    assert f"{out}: Not a directory" in command("export", finished.folder, "--out", out).refused()
    assert str(tmp_path / "record.json") in command("export", tmp_path).refused()
    assert "nix" in command("export", "nix", "--runs", tmp_path).refused()


def rewritten(source: Path, target: Path, *, tensors: dict[str, Any] | None = None, **metadata: str | None) -> Path:
    with safe_open(source, framework="pt") as file:
        known = file.metadata() | metadata
    state = load_file(source) | (tensors or {})
    save_file(state, target, {key: value for key, value in known.items() if value is not None})
    return target


@pytest.mark.parametrize(
    "change",
    [
        {"format": None},
        {"classes": None},
        {"classes": "7"},
        {"classes": '["a", "b"]'},
        {"mean_01": "[1]"},
        {"model": "{"},
        {"model": "[]"},
        {"model": '{"kind": "vgg"}'},
        {"model": '{"kind": "resnet", "depth": 3}'},
        {"model": '{"kind": "resnet", "width": "3"}'},
        {"weights_sha256": "0"},
        {"tensors": {"mean": torch.zeros(9)}},
    ],
)
def test_a_file_whose_metadata_or_weights_are_wrong(exported: Path, tmp_path: Path, change: Any) -> None:
    path = rewritten(exported / "model.safetensors", tmp_path / "x.safetensors", **change)
    with pytest.raises(UserError, match=re.escape(str(path))):
        load_classifier(path)


@pytest.mark.parametrize("content", [None, b"", b"hello" * 9])
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(str(path))):
        load_classifier(path)
