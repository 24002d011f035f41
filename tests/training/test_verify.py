"""A run is verified by training it again; whatever was changed in between is named."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastcifar.config import Config
from fastcifar.errors import RunFailedError, UserError
from fastcifar.runtime import device
from fastcifar.training.trainer import train
from fastcifar.training.verify import verify

Command = Callable[..., Any]


@pytest.fixture
def copy(finished: Any, tmp_path: Path) -> Path:
    shutil.copytree(finished.folder, tmp_path / "run")
    return tmp_path / "run"


def changed(folder: Path, **fields: Any) -> None:
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(record | fields))


def test_a_run_that_repeats(finished: Any) -> None:
    assert verify(finished.folder) == (
        "the same: order, images, initial weights, the loss of 72 steps and the weights "
        + finished.record["weights_sha256"][:12]
    )
    assert verify(finished.folder, steps=5) == "the same: order, images, initial weights, the loss of 5 steps"


@pytest.mark.parametrize("name", ["order", "images", "initial weights"])
def test_the_first_difference_is_named(name: str, finished: Any, copy: Path) -> None:
    changed(copy, fingerprints=finished.record["fingerprints"] | {name: "0" * 64})
    with pytest.raises(
        RunFailedError, match=rf"run does not repeat: {name} \w{{12}}, was 000000000000\. Changed since: "
    ):
        verify(copy, steps=1)


def test_a_loss_that_differs_is_named_by_its_step(copy: Path) -> None:
    lines = (copy / "metrics.jsonl").read_text().splitlines()
    step = json.loads(lines[7])
    lines[7] = json.dumps(step | {"loss": 2.5})
    (copy / "metrics.jsonl").write_text("\n".join(lines))
    with pytest.raises(RunFailedError, match=rf"the loss of step 7 is {step['loss']}, was 2\.5\. Changed since: "):
        verify(copy)


def test_weights_that_differ_alone_and_what_changed_of_the_environment(finished: Any, copy: Path) -> None:
    versions = finished.record["versions"] | {"torch": "2.0.0"}
    changed(copy, weights_sha256="f" * 64, versions=versions)
    message = r"the weights are \w{12}, were ffffffffffff, though no loss differs\. .*: versions torch .*, was 2\.0"
    with pytest.raises(RunFailedError, match=message):
        verify(copy)


def test_runs_that_cannot_be_compared(copy: Path, tmp_path: Path) -> None:
    record = json.loads((copy / "record.json").read_text())
    changed(copy, dataset_sha256="0" * 64)
    with pytest.raises(UserError, match=r"is not what .* was trained on: name the right data with --data"):
        verify(copy)
    del record["fingerprints"]
    (copy / "record.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"has no fingerprints to compare with: an earlier version trained it"):
        verify(copy)
    changed(copy, fingerprints={})
    (copy / "metrics.jsonl").write_text('{"kind": "step"}\n')
    with pytest.raises(UserError, match=r"cannot read .*metrics\.jsonl"):
        verify(copy)


def test_the_command(finished: Any, copy: Path, command: Command) -> None:
    done = command("verify", finished.folder, "--steps", 3)
    assert (done.code, done.out) == (0, "the same: order, images, initial weights, the loss of 3 steps\n")
    changed(copy, fingerprints=finished.record["fingerprints"] | {"order": "0" * 64})
    done = command("verify", copy)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"failed: {copy} does not repeat: order ")
    assert command("verify", copy, "--steps", 0).refused() == "--steps is 0, but must be at least 1"


def test_what_auto_meant_is_what_is_trained_again(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = frozenset({"avx512f", "avx512_fp16"})
    monkeypatch.setattr(device, "cpu_facts", lambda: ("GenuineIntel", flags))
    folder, record = train(replace(tiny, epochs=1, amp="auto"))
    assert (record["amp"], record["cpu_kernels"]) == ("float32", "winograd-fp16")
    assert verify(folder).startswith("the same: ")
