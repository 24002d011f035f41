"""A run is verified by training it again; what differs first is named, and what changed in between."""

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


@pytest.fixture(scope="module")
def short(tiny: Config) -> Path:
    """A run of 6 steps that chose its arithmetic on a CPU without any feature."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "cpu_facts", lambda: ("", frozenset()))
        return train(replace(tiny, epochs=0.5, resolution=((1.0, 16),), amp="auto", cpu_kernels="auto"))[0]


@pytest.fixture
def copy(short: Path, tmp_path: Path) -> Path:
    return shutil.copytree(short, tmp_path / "run")


def change_record(folder: Path, **fields: Any) -> dict[str, Any]:
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(record | fields))
    return record


def test_a_run_repeats_in_the_arithmetic_it_chose(short: Path) -> None:
    weights = json.loads((short / "record.json").read_text())["weights_sha256"]
    same = "the same: order, images, initial weights, the loss of"
    assert verify(short) == f"{same} 6 steps and the weights {weights[:12]}"
    assert verify(short, steps=5) == f"{same} 5 steps"


@pytest.mark.parametrize("name", ["order", "images", "initial weights"])
def test_the_first_different_fingerprint_is_named(name: str, copy: Path) -> None:
    record = change_record(copy)
    change_record(copy, fingerprints=record["fingerprints"] | {name: "0" * 64})
    with pytest.raises(RunFailedError, match=rf"{name} \w{{12}}, was 000000000000"):
        verify(copy, steps=1)


def test_the_first_different_loss_is_named_by_its_step(copy: Path) -> None:
    lines = (copy / "metrics.jsonl").read_text().splitlines()
    step = json.loads(lines[4])
    lines[4] = json.dumps(step | {"loss": 2.5})
    (copy / "metrics.jsonl").write_text("\n".join(lines))
    with pytest.raises(RunFailedError, match=rf"the loss of step 4 is {step['loss']}, was 2\.5"):
        verify(copy)


def test_different_weights_and_what_changed_in_the_environment(copy: Path) -> None:
    versions = change_record(copy)["versions"] | {"torch": "2.0.0"}
    change_record(copy, weights_sha256="f" * 64, versions=versions)
    with pytest.raises(RunFailedError, match=r"weights are \w{12}, were ffffffffffff.*versions torch .*, was 2\.0\.0"):
        verify(copy)


def test_runs_that_cannot_be_compared(copy: Path) -> None:
    record = change_record(copy, dataset_sha256="0" * 64)
    with pytest.raises(UserError, match="--data"):
        verify(copy)
    for missing in ("fingerprints", "cpu_kernels"):
        (copy / "record.json").write_text(json.dumps({k: v for k, v in record.items() if k != missing}))
        with pytest.raises(UserError, match=missing):
            verify(copy)
    (copy / "record.json").write_text(json.dumps(record))
    for text in ('{"kind": "step"}\n', '{"kind": "step", "loss": 2.5}\n'):
        (copy / "metrics.jsonl").write_text(text)
        with pytest.raises(UserError, match=r"metrics\.jsonl"):
            verify(copy)


def test_the_command(copy: Path, command: Callable[..., Any]) -> None:
    done = command("verify", copy, "--steps", 3)
    assert (done.code, done.out) == (0, "the same: order, images, initial weights, the loss of 3 steps\n")
    change_record(copy, fingerprints={"order": "0" * 64})
    done = command("verify", copy)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("failed: ")
    assert "--steps is 0" in command("verify", copy, "--steps", 0).refused()
