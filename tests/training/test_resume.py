"""A run that is interrupted anywhere and resumed ends with the same weights, bit for bit, as one that is not."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fastcifar.config import AugmentConfig, Config
from fastcifar.errors import RunFailedError, UserError
from fastcifar.models.resnet import ResNetConfig
from fastcifar.optim.adam import AdamConfig
from fastcifar.optim.sgd import SgdConfig
from fastcifar.runs.checkpoint import Checkpoint, checkpoint_files, read_checkpoint, write_checkpoint
from fastcifar.runs.resume import differences, furthest_unfinished, lock_run
from fastcifar.schedules.one_cycle import OneCycle
from fastcifar.training import trainer
from fastcifar.training.trainer import train

Write = Callable[[Path, Checkpoint, int], Path]


@dataclass(frozen=True)
class Whole:
    """A finished run and every checkpoint that it wrote."""

    config: Config
    folder: Path
    record: dict[str, Any]
    checkpoints: Path

    def interrupted(self, folder: Path, *steps: int) -> Path:
        """The run as a kill after its last step leaves it, with the checkpoints of `steps`."""
        (folder / "checkpoints").mkdir(parents=True)
        for name in ("config.toml", "metrics.jsonl"):
            shutil.copy(self.folder / name, folder)
        for step in steps:
            shutil.copy(self.checkpoints / f"step-{step:08d}.safetensors", folder / "checkpoints")
        return folder


def train_with(write: Write, config: Config, folder: Path | None = None) -> tuple[Path, dict[str, Any]]:
    """Trains with a checkpoint after each step, which `write` writes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "write_checkpoint", write)
        return train(replace(config, checkpoint_every="1"), folder)


def trained_whole(config: Config, folder: Path) -> Whole:
    kept = folder / "kept"
    kept.mkdir(parents=True)

    def write_and_copy(run: Path, checkpoint: Checkpoint, keep: int) -> Path:
        return Path(shutil.copy(write_checkpoint(run, checkpoint, keep), kept))

    return Whole(config, *train_with(write_and_copy, replace(config, runs=folder / "runs")), kept)


@pytest.fixture(scope="module")
def whole(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """18 steps with Muon: the image size changes after 7, an evaluation comes after 12, the stem freezes after 15."""
    model = replace(tiny.model, widths=(16, 16), stem_epochs=1.25)
    config = replace(tiny, epochs=1.5, evaluate_every=1, model=model, resolution=((0.4, 16), (1.0, 20)))
    return trained_whole(config, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("step", [0, 1, 7, 12, 13, 18])
def test_a_resumed_run_ends_the_same(step: int, whole: Whole, tmp_path: Path) -> None:
    folder = whole.interrupted(tmp_path / "run", *([step] if step else []))
    _, record = train(whole.config, folder)
    assert record["resumed_at"] == ([step] if step else [])
    for key in ("weights_sha256", "test_accuracy", "test_accuracy_tta", "train_accuracy"):
        assert record[key] == whole.record[key]
    assert (folder / "metrics.jsonl").read_text() == (whole.folder / "metrics.jsonl").read_text()
    assert [path.name for path in checkpoint_files(folder)] == ["step-00000018.safetensors"]
    assert not (folder / ".lock").exists()


def resnet(config: Config, optimizer: Any) -> Config:
    return replace(
        config, model=ResNetConfig(width=2, dropout=0.2), optimizer=optimizer, resolution=((1.0, 16),), epochs=0.5
    )


@pytest.mark.parametrize("kind", ["sgd with dropout", "adam in float16", "stream"])
def test_a_checkpoint_holds_all_of_a_run_s_state(kind: str, tiny: Config, tmp_path: Path) -> None:
    sgd = SgdConfig(lr=0.01, nesterov=True, weight_decay=5e-4)
    config = {
        "sgd with dropout": replace(resnet(tiny, sgd), schedule=OneCycle(peak_epoch=0.25)),
        "adam in float16": replace(resnet(tiny, AdamConfig(lr=0.001)), amp="float16"),
        "stream": replace(
            tiny, epochs=0.5, loader="stream", augment=AugmentConfig(pad=4, flip="alternating", cutout=8)
        ),
    }[kind]
    whole = trained_whole(config, tmp_path / "whole")
    assert whole.record["amp"] == config.amp
    changed = replace(whole.config, loader="resident" if kind == "stream" else "stream", evaluation_batch_size=33)
    _, record = train(changed, whole.interrupted(tmp_path / "run", 4))
    assert record["weights_sha256"] == whole.record["weights_sha256"]
    assert record["loader"] == changed.loader


@pytest.mark.usefixtures("simulated_gpu")
def test_a_run_by_cuda_graphs_resumes(whole: Whole, tmp_path: Path) -> None:
    replayed = trained_whole(whole.config, tmp_path / "whole")
    assert replayed.record["paths"]["step"] == "graph"
    for step in (1, 12, 14):
        _, record = train(replayed.config, replayed.interrupted(tmp_path / f"run-{step}", step))
        assert record["weights_sha256"] == replayed.record["weights_sha256"]


def test_a_run_that_is_interrupted_twice(whole: Whole, tmp_path: Path) -> None:
    def write_and_stop(run: Path, checkpoint: Checkpoint, keep: int) -> Path:
        path = write_checkpoint(run, checkpoint, keep)
        if checkpoint.step == 9:
            raise KeyboardInterrupt
        return path

    folder = whole.interrupted(tmp_path / "run", 5)
    with pytest.raises(KeyboardInterrupt):
        train_with(write_and_stop, whole.config, folder)
    _, record = train(whole.config, folder)
    assert record["weights_sha256"] == whole.record["weights_sha256"]
    assert record["resumed_at"] == [5, 9]


def test_damaged_checkpoints_are_skipped(whole: Whole, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = whole.interrupted(tmp_path / "run", 8, 14, 15)
    for step in (14, 15):
        path = folder / "checkpoints" / f"step-{step:08d}.safetensors"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 16
        path.write_bytes(content[: None if step == 14 else 1000])
    _, record = train(whole.config, folder)
    assert record["resumed_at"] == [8]
    assert record["weights_sha256"] == whole.record["weights_sha256"]
    errors = capsys.readouterr().err
    assert all(f"step-{step:08d}.safetensors" in errors for step in (14, 15))


def test_checkpoints_that_do_not_fit_are_refused(whole: Whole, tmp_path: Path) -> None:
    folder = whole.interrupted(tmp_path / "run", 18)
    config = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(config.replace("[16, 16]", "[16, 17]"))
    with pytest.raises(UserError, match=r"blocks\.1"):
        train(replace(whole.config, model=replace(whole.config.model, widths=(16, 17))), folder)
    (folder / "config.toml").write_text(config)
    write_checkpoint(folder, replace(read_checkpoint(checkpoint_files(folder)[0]), step=19), keep=1)
    with pytest.raises(UserError, match=r"step 19, .* 18"):
        train(whole.config, folder)


def test_other_data_is_refused(whole: Whole, tmp_path: Path) -> None:
    manifest = json.loads((whole.config.data / "manifest.json").read_text())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "manifest.json").write_text(json.dumps(manifest | {"content_sha256": "0" * 64}))
    with pytest.raises(UserError, match=f"{manifest['content_sha256'][:12]}, now 000000000000"):
        train(replace(whole.config, data=tmp_path / "data"), whole.interrupted(tmp_path / "run", 5))


def test_settings_that_do_not_affect_the_weights_may_change(tiny: Config) -> None:
    free = replace(tiny, loader="stream", runs=Path("x"), data=Path("y"), checkpoint_every="5", evaluation_batch_size=7)
    assert differences(tiny, free) == []
    assert differences(tiny, replace(tiny, seed=5, threads=2)) == ["seed is 5, was 0", "threads is 2, was 1"]
    (change,) = differences(tiny, replace(tiny, optimizer=SgdConfig(lr=0.3)))
    assert change.startswith("optimizer is SgdConfig(lr=0.3")


def test_the_unfinished_run_with_the_most_steps(whole: Whole, tmp_path: Path) -> None:
    config = replace(whole.config, runs=tmp_path)
    assert furthest_unfinished(config) is None
    near, far = whole.interrupted(tmp_path / "b-near", 3), whole.interrupted(tmp_path / "a-far", 3, 9)
    assert furthest_unfinished(config) == far
    (far / "record.json").write_text("{}")
    assert furthest_unfinished(config) == near
    assert furthest_unfinished(replace(config, seed=1)) is None
    (near / "config.toml").write_text("seed = ")
    assert furthest_unfinished(config) is None


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(
    whole: Whole, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(run: Path, checkpoint: Checkpoint, keep: int) -> Path:
        raise OSError(28, "No space left on device")

    _, record = train_with(full, whole.config, whole.interrupted(tmp_path / "run", 15))
    assert record["weights_sha256"] == whole.record["weights_sha256"]
    warnings = [line for line in capsys.readouterr().err.splitlines() if "No space left on device" in line]
    assert [f"step {step}:" in line for step, line in zip((16, 17, 18), warnings, strict=True)] == [True] * 3


MEMORY = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"


@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [
        (OSError(28, "No space left on device"), RunFailedError, "No space left on device.*--resume "),
        (MemoryError(), RunFailedError, "batch_size 50; try --batch-size 25"),
        (RuntimeError(MEMORY), RunFailedError, "batch_size 50; try --batch-size 25"),
        (torch.OutOfMemoryError("CUDA out of memory."), RunFailedError, "batch_size 50; try --batch-size 25"),
        (RuntimeError("something else"), RuntimeError, "^something else$"),
    ],
    ids=["disk", "python", "cpu", "gpu", "other"],
)
def test_failures_of_the_machine_come_with_advice(
    error: Exception, expected: type[Exception], text: str, whole: Whole, tmp_path: Path, monkeypatch: Any
) -> None:
    def fail(*arguments: Any) -> Any:
        raise error

    monkeypatch.setattr("fastcifar.training.step.TrainStep.__call__", fail)
    with pytest.raises(expected, match=text):
        train(whole.config, whole.interrupted(tmp_path / "run", 5))


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with lock_run(tmp_path), pytest.raises(UserError, match=str(tmp_path)), lock_run(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
