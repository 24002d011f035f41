"""`fastcifar export`: the exported network gives our logits over the test set, and its card is true."""

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

from fastcifar.cli.export import export
from fastcifar.config import EVALUATION_NAMES, ModelConfig, ResNet18Config, ResNetConfig, SpeedNetConfig
from fastcifar.data.prepared import read_split
from fastcifar.errors import UserError
from fastcifar.export.classifier import classifier_of, load_classifier, metadata_of
from fastcifar.models.build import build_model
from fastcifar.runs.load import TrainedRun, load_run
from fastcifar.runs.record import weights_sha256

Command = Callable[..., Any]
TOLERANCE = 1e-4
needs_onnx = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="the extra `onnx` is not installed",
)


def our_logits(trained: TrainedRun, images: np.ndarray) -> torch.Tensor:
    rows = np.arange(len(images))
    with torch.inference_mode():
        return trained.model(trained.transform()(images, rows, rows, 0))


def images_01(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def exported(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    export(load_run(finished.folder), "safetensors", folder)
    return folder


def test_the_command(finished: Any, tmp_path: Path, command: Command) -> None:
    done = command("export", finished.folder, "--out", tmp_path / "new" / "folder")
    assert (done.code, done.err) == (0, "")
    files = [tmp_path / "new" / "folder" / name for name in ("model.safetensors", "MODEL_CARD.md")]
    assert done.out == "".join(f"{path}\n" for path in files)
    assert sorted(path.name for path in files[0].parent.iterdir()) == ["MODEL_CARD.md", "model.safetensors"]


def test_reloaded_logits_are_ours_over_the_test_set(finished: Any, exported: Path, small_data: Path) -> None:
    images, labels = read_split(small_data, "test")
    classifier = load_classifier(exported / "model.safetensors")
    with torch.inference_mode():
        logits = classifier(images_01(images))
    torch.testing.assert_close(logits, our_logits(load_run(finished.folder), images), rtol=TOLERANCE, atol=TOLERANCE)
    assert (logits.argmax(1).numpy() == labels).mean() == pytest.approx(finished.record["test_accuracy"])
    assert classifier.class_names == finished.record["class_names"]


def test_the_file_says_what_it_is(finished: Any, exported: Path) -> None:
    with safe_open(exported / "model.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert metadata == metadata_of(load_run(finished.folder))
    assert metadata["format"] == "fastcifar classifier 1"
    assert json.loads(metadata["classes"]) == finished.record["class_names"]
    assert json.loads(metadata["mean_01"]) == finished.record["mean_01"]
    assert json.loads(metadata["model"])["kind"] == "speed"
    assert (metadata["recipe"], metadata["dataset"]) == ("smoke", "synthetic")
    assert metadata["dataset_sha256"] == finished.record["dataset_sha256"]


def test_the_card(finished: Any, exported: Path) -> None:
    card, record = (exported / "MODEL_CARD.md").read_text(), finished.record
    assert card.startswith("# smoke")
    assert "**Trained on a synthetic set, not on CIFAR-10.**" in card
    for fact in (
        f"| test accuracy, {EVALUATION_NAMES['single_view']} | {record['test_accuracy']:.2%} |",
        f"| test accuracy, {EVALUATION_NAMES['flip_tta']} | {record['test_accuracy_tta']:.2%} (primary metric): ",
        f"| SHA-256 of the weights | `{record['weights_sha256']}` |",
        f"| classes, in the order of the logits | {', '.join(record['class_names'])} |",
        f"{record['parameters']:,} parameters",
        "not normalised",
    ):
        assert fact in card


def test_the_card_s_code_runs(exported: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (exported / "MODEL_CARD.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, Any] = {"images_nhwc": read_split(small_data, "test")[0]}
    monkeypatch.chdir(exported)
    exec(blocks[1], names)
    assert len(names["names"]) == 200


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
def test_onnx_runtime_gives_our_logits_over_the_test_set(
    finished: Any, tmp_path: Path, small_data: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx")  # an extra: a plain import would be an error to the type checker without it

    done = command("export", finished.folder, "--format", "onnx", "--out", tmp_path)
    assert done.code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["MODEL_CARD.md", "model.onnx"]
    model = onnx.load(tmp_path / "model.onnx")  # another reader than torch's
    onnx.checker.check_model(model)
    written = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata_of(load_run(finished.folder)).items() <= written.items()
    images, _ = read_split(small_data, "test")
    blocks = re.findall(r"```python\n(.*?)```", (tmp_path / "MODEL_CARD.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {"images_nhwc": images}
    monkeypatch.chdir(tmp_path)
    exec(blocks[0], names)
    expected = our_logits(load_run(finished.folder), images)
    torch.testing.assert_close(torch.from_numpy(names["logits"]), expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_onnx_without_its_packages(
    finished: Any, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastcifar.export.onnx.find_spec", lambda name: None)
    assert command("export", finished.folder, "--format", "onnx", "--out", tmp_path / "x").refused() == (
        "ONNX needs onnx and onnxscript, not installed here; run `pip install -e '.[onnx]'` in the checkout"
    )
    assert not list(tmp_path.rglob("*"))


def test_what_cannot_be_exported(finished: Any, tmp_path: Path, command: Command) -> None:
    (tmp_path / "file").touch()
    assert command("export", finished.folder, "--out", tmp_path / "file" / "x").refused() == (
        f"cannot write to {tmp_path / 'file' / 'x'}: Not a directory; choose another --out"
    )
    assert command("export", tmp_path).refused().startswith(f"{tmp_path} holds no finished run: ")
    assert command("export", "nix", "--runs", tmp_path).refused() == (
        f"no run is called nix, neither as a path nor in {tmp_path}"
    )


def rewritten(source: Path, target: Path, *, tensors: dict[str, Any] | None = None, **metadata: str | None) -> Path:
    with safe_open(source, framework="pt") as file:
        known = file.metadata() | metadata
    state = load_file(source) | (tensors or {})
    save_file(state, target, {key: value for key, value in known.items() if value is not None})
    return target


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"format": None}, "{path} is not an exported classifier; write one with `fastcifar export`"),
        ({"classes": None}, "{path} is damaged, its metadata do not fit its weights: 'classes'"),
        ({"classes": "7"}, "{path} is damaged, its metadata do not fit its weights: "),
        ({"classes": '["a", "b"]'}, "{path} is damaged, its metadata do not fit its weights: Error(s) in loading"),
        ({"mean_01": "[1]"}, "{path} is damaged, its metadata do not fit its weights: shape"),
        ({"model": "{"}, "{path} is damaged, its metadata do not fit its weights: Expecting property name"),
        ({"model": "[]"}, "{path} is damaged, its metadata do not fit its weights: "),
        ({"model": '{"kind": "vgg"}'}, "{path} is damaged, its metadata do not fit its weights: 'vgg'"),
        ({"model": '{"kind": "resnet", "depth": 3}'}, "{path} is damaged, its metadata do not fit its weights: "),
        ({"model": '{"kind": "resnet", "width": "3"}'}, "{path} is damaged, its metadata do not fit its weights: "),
        ({"weights_sha256": "0"}, "{path} does not hold the weights it was written with: their SHA-256 differs; "),
        ({"tensors": {"mean": torch.zeros(9)}}, "{path} is damaged, its metadata do not fit its weights: Error(s)"),
    ],
)
def test_files_that_are_not_what_they_say(exported: Path, tmp_path: Path, change: Any, text: str) -> None:
    path = rewritten(exported / "model.safetensors", tmp_path / "x.safetensors", **change)
    with pytest.raises(UserError) as caught:
        load_classifier(path)
    assert str(caught.value).startswith(text.format(path=path))


@pytest.mark.parametrize("content", [None, b"", b"hello" * 9])
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"^cannot read the weights {re.escape(str(path))}: "):
        load_classifier(path)
