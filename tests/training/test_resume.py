"""A run that was cut off anywhere ends in the same weights, bit for bit, as one that was not."""

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fastcifar.config import AdamConfig, AugmentConfig, Config, ResNetConfig, ScheduleConfig, SgdConfig
from fastcifar.errors import RunFailedError, UserError
from fastcifar.runs.checkpoint import (
    Checkpoint,
    CheckpointSchedule,
    checkpoint_files,
    newest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from fastcifar.runs.resume import differences, only_one, unfinished_like
from fastcifar.training import trainer
from fastcifar.training.trainer import train

STEPS = 30  # 2.5 epochs of 12


@dataclass(frozen=True)
class Whole:
    """A finished run and every checkpoint that it wrote."""

    config: Config
    folder: Path
    record: dict[str, Any]
    checkpoints: Path

    def cut_off(self, folder: Path, *steps: int) -> Path:
        """The run as a kill some time after its last checkpoint leaves it; `steps` are those that are kept."""
        (folder / "checkpoints").mkdir(parents=True)
        for name in ("config.toml", "metrics.jsonl"):
            shutil.copy(self.folder / name, folder)
        for step in steps:
            shutil.copy(self.checkpoints / f"step-{step:08d}.safetensors", folder / "checkpoints")
        return folder


def trained_whole(config: Config, folder: Path) -> Whole:
    kept = folder / "kept"
    kept.mkdir(parents=True)

    def write_and_copy(run: Path, checkpoint: Checkpoint, keep: int) -> Path:
        path = write_checkpoint(run, checkpoint, keep)
        shutil.copy(path, kept)
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "write_checkpoint", write_and_copy)
        return Whole(config, *train(replace(config, runs=folder / "runs", checkpoint_every="1")), kept)


@pytest.fixture(scope="module")
def whole(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Muon, evaluated after an epoch, the stem frozen on the way."""
    model = replace(tiny.model, stem_epochs=1.5)
    config = replace(tiny, epochs=2.5, evaluate_every=1, model=model, resolution=((0.4, 20), (1.0, 24)))
    return trained_whole(config, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("step", [0, 1, 11, 12, 13, 29, 30])
def test_a_run_that_was_cut_off_ends_the_same(step: int, whole: Whole, tmp_path: Path) -> None:
    folder = whole.cut_off(tmp_path / "run", *([step] if step else []))
    _, record = train(whole.config, folder)
    assert record["weights_sha256"] == whole.record["weights_sha256"]
    assert record["resumed_at"] == ([step] if step else [])
    for key in ("test_accuracy", "test_accuracy_tta", "train_accuracy"):
        assert record[key] == whole.record[key]
    assert (folder / "metrics.jsonl").read_text() == (whole.folder / "metrics.jsonl").read_text()
    assert [path.name for path in checkpoint_files(folder)] == [f"step-{STEPS:08d}.safetensors"]
    assert not (folder / ".lock").exists()


@pytest.mark.parametrize("kind", ["sgd with dropout", "adam in float16", "stream"])
def test_whatever_a_run_remembers_is_in_its_checkpoints(kind: str, tiny: Config, tmp_path: Path) -> None:
    resnet = ResNetConfig(width=2, dropout=0.2)
    sgd = SgdConfig(lr=0.01, nesterov=True, weight_decay=5e-4)
    config = {
        "sgd with dropout": replace(tiny, model=resnet, optimizer=sgd, schedule=ScheduleConfig(peak_epoch=0.5)),
        "adam in float16": replace(tiny, model=resnet, optimizer=AdamConfig(lr=0.001), amp="float16"),
        "stream": replace(tiny, loader="stream", augment=AugmentConfig(pad=4, flip="alternating", cutout=8)),
    }[kind]
    whole = trained_whole(replace(config, epochs=1), tmp_path / "whole")
    folder = whole.cut_off(tmp_path / "run", 7)
    changed = replace(whole.config, loader="resident" if kind == "stream" else "stream", evaluation_batch_size=33)
    _, record = train(changed, folder)
    assert record["weights_sha256"] == whole.record["weights_sha256"]
    assert record["loader"] == changed.loader


def test_cut_off_twice(whole: Whole, tmp_path: Path) -> None:
    first = trained_again_until(whole, whole.cut_off(tmp_path / "run", 5), 19)
    _, record = train(whole.config, first)
    assert record["weights_sha256"] == whole.record["weights_sha256"]
    assert record["resumed_at"] == [5, 19]


def trained_again_until(whole: Whole, folder: Path, step: int) -> Path:
    """Goes on with a run until it fails while it writes the checkpoint of `step`, which then is whole."""

    def write_and_fail(run: Path, checkpoint: Checkpoint, keep: int) -> Path:
        path = write_checkpoint(run, checkpoint, keep)
        if checkpoint.step == step:
            raise KeyboardInterrupt
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "write_checkpoint", write_and_fail)
        with pytest.raises(KeyboardInterrupt):
            train(replace(whole.config, checkpoint_every="1"), folder)
    return folder


def test_the_threads_of_the_loader_may_change(whole: Whole, tmp_path: Path) -> None:
    folder = whole.cut_off(tmp_path / "run", 17)
    environment = {**os.environ, "NUMBA_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "fastcifar", "train", "--resume", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert f'"weights_sha256": "{whole.record["weights_sha256"]}"' in (folder / "record.json").read_text()


def test_a_damaged_checkpoint_is_passed_over(whole: Whole, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = whole.cut_off(tmp_path / "run", 8, 20, 25)
    for step in (20, 25):
        path = folder / "checkpoints" / f"step-{step:08d}.safetensors"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 16
        path.write_bytes(content[: None if step == 20 else 1000])
    _, record = train(whole.config, folder)
    assert record["resumed_at"] == [8]
    assert record["weights_sha256"] == whole.record["weights_sha256"]
    errors = capsys.readouterr().err
    assert (
        "step-00000020.safetensors is damaged, or no checkpoint of this version: its SHA-256 differs; trying" in errors
    )
    assert "cannot read the checkpoint" in errors


class Planted:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return (os.mkdir, (os.environ["PLANTED"],))


def test_a_planted_pickle_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED", str(tmp_path / "planted"))
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    path = folder / "step-00000003.safetensors"
    for content in (pickle.dumps(Planted()), None):
        if content is None:
            torch.save({"model": Planted()}, path)
        else:
            path.write_bytes(content)
        with pytest.raises(UserError, match=r"cannot read the checkpoint .*step-00000003\.safetensors"):
            read_checkpoint(path)
        assert newest_checkpoint(tmp_path / "run") is None
    assert not (tmp_path / "planted").exists()


def test_a_checkpoint_of_another_network_is_refused(whole: Whole, tiny: Config, tmp_path: Path) -> None:
    folder = whole.cut_off(tmp_path / "run", 5)
    (folder / "config.toml").write_text((folder / "config.toml").read_text().replace("[16, 32, 32]", "[16, 32]"))
    with pytest.raises(
        UserError, match=r"the checkpoint does not fit this version's network or optimiser: .*blocks\.2"
    ):
        train(replace(whole.config, model=replace(whole.config.model, widths=(16, 32))), folder)


def test_a_checkpoint_behind_the_end_is_refused(whole: Whole, tmp_path: Path) -> None:
    folder = whole.cut_off(tmp_path / "run", 30)
    later = replace(read_checkpoint(checkpoint_files(folder)[0]), step=31)
    write_checkpoint(folder, later, keep=1)
    with pytest.raises(UserError, match="has a checkpoint of step 31, but the run ends at 30"):
        train(whole.config, folder)


def test_other_data_is_refused(whole: Whole, tmp_path: Path) -> None:
    from fastcifar.data.prepared import write_set
    from fastcifar.data.sources.synthetic import synthetic_set

    write_set(synthetic_set(train=600, test=200, seed=4), tmp_path / "data")
    folder = whole.cut_off(tmp_path / "run", 5)
    with pytest.raises(UserError, match=r"run was trained on other data \(\w{12}, now \w{12}\): prepare that again"):
        train(replace(whole.config, data=tmp_path / "data"), folder)


def test_what_counts_as_a_change(tiny: Config) -> None:
    free = replace(tiny, loader="stream", runs=Path("x"), data=Path("y"), checkpoint_every="5", evaluation_batch_size=7)
    assert differences(tiny, free) == []
    assert differences(tiny, replace(tiny, seed=5, threads=2)) == ["seed is 5, was 0", "threads is 2, was 1"]
    other = replace(tiny, optimizer=SgdConfig(lr=0.3))
    (change,) = differences(tiny, other)
    assert change.startswith("optimizer is SgdConfig(lr=0.3")


def test_the_unfinished_run_that_got_furthest(whole: Whole, tmp_path: Path) -> None:
    config = replace(whole.config, runs=tmp_path)
    assert unfinished_like(config) is None
    near, far = whole.cut_off(tmp_path / "b-near", 3), whole.cut_off(tmp_path / "a-far", 3, 9)
    assert unfinished_like(config) == far
    (far / "record.json").write_text("{}")
    assert unfinished_like(config) == near
    assert unfinished_like(replace(config, seed=1)) is None
    (near / "config.toml").write_text("seed = ")
    assert unfinished_like(config) is None


FACTS = {
    "state": {"scaler": None, "history": {"loss": 1.5, "accuracy": None, "epoch": [], "recent": [], "judged": False}},
    "metrics_bytes": 0,
    "train_accuracy": None,
    "train_s": 1.0,
    "run_s": 2.0,
    "resumed_at": [],
    "dataset_sha256": "0" * 64,
    "versions": {},
    "hardware": {},
}


@pytest.mark.parametrize("name", FACTS)
def test_made_up_facts_are_refused(name: str, tmp_path: Path) -> None:
    for value in ("x" * 200, -1, {"history": None}):
        if name == "dataset_sha256" and isinstance(value, str):
            continue
        if (name in ("train_accuracy", "train_s", "run_s") and value == -1) or (name in ("versions", "hardware")):
            value = [value]
        path = write_checkpoint(tmp_path, Checkpoint(3, {}, FACTS | {name: value}), keep=1)
        with pytest.raises(UserError, match=rf"is no checkpoint of a run: its {name} is "):
            read_checkpoint(path)


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 100_000_000, 15, 20):
        write_checkpoint(tmp_path, Checkpoint(step, {"x": torch.tensor([1.0])}, FACTS), keep=2)
    assert [read_checkpoint(path).step for path in checkpoint_files(tmp_path)] == [100_000_000, 20]


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(
    whole: Whole, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(run: Path, checkpoint: Checkpoint, keep: int) -> Path:
        raise OSError(28, "No space left on device")

    folder = whole.cut_off(tmp_path / "run", 21)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "write_checkpoint", full)
        _, record = train(replace(whole.config, checkpoint_every="5"), folder)
    assert record["weights_sha256"] == whole.record["weights_sha256"]
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("no checkpoint")]
    assert lines == [f"no checkpoint after step {step}: [Errno 28] No space left on device" for step in (25, 30)]


def test_failures_of_the_machine_say_how_to_go_on(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(error: Exception) -> Callable[..., Any]:
        def step(*arguments: Any) -> Any:
            raise error

        return step

    folder = whole.cut_off(tmp_path / "run", 21)
    monkeypatch.setattr(trainer.TrainStep, "__call__", raising(OSError(28, "No space left on device")))
    message = (
        rf"^{folder}: No space left on device; mend that and go on with python -m fastcifar\.train --resume {folder}$"
    )
    with pytest.raises(RunFailedError, match=message):
        train(whole.config, folder)
    memory = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    for error in (MemoryError(), RuntimeError(memory), torch.OutOfMemoryError("CUDA out of memory.")):
        monkeypatch.setattr(trainer.TrainStep, "__call__", raising(error))
        with pytest.raises(RunFailedError, match=r"^out of memory with batch_size 50; try --batch-size 25$"):
            train(whole.config, folder)
    monkeypatch.setattr(trainer.TrainStep, "__call__", raising(RuntimeError("something else")))
    with pytest.raises(RuntimeError, match="something else"):
        train(whole.config, folder)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with only_one(tmp_path), pytest.raises(UserError, match="is being trained by another process"), only_one(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("every", "due"), [("0", []), ("3", [3, 6, 9]), ("0.0s", []), ("900s", [])])
def test_the_timetable(every: str, due: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint_schedule = CheckpointSchedule(every)
    assert [step for step in range(1, 11) if checkpoint_schedule.due(step)] == due
    assert checkpoint_schedule.ever == (every in ("3", "900s"))


def test_a_clock_that_is_set_back_stops_no_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    checkpoint_schedule = CheckpointSchedule("0.000001s")
    monkeypatch.setattr(time, "time", lambda: -1e9)
    assert checkpoint_schedule.due(1)


@pytest.mark.parametrize("every", ["", "s", "-1", "1.5", "5 m", "1e3", "99999999999", "٣"])
def test_intervals_that_are_none(every: str) -> None:
    with pytest.raises(
        UserError, match=r"checkpoint_every is .*, but must be steps \(\"500\"\), seconds \(\"60s\"\) or"
    ):
        Config(checkpoint_every=every)
