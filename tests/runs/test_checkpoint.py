"""Checkpoint files: what is refused, which are kept, and when they are due."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from fastcifar.config import Config
from fastcifar.errors import UserError
from fastcifar.runs.checkpoint import (
    FACTS,
    Checkpoint,
    CheckpointSchedule,
    checkpoint_files,
    newest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)

VALID = {
    "state": {"scaler": None, "history": {"loss": 1.5, "accuracy": None, "epoch": [], "recent": [], "judged": False}},
    "metrics_bytes": 0,
    "train_accuracy": None,
    "train_s": 1.0,
    "run_s": 2.0,
    "resumed_at": [],
    "dataset_sha256": "0" * 64,
    "versions": {},
    "hardware": {},
    "imports": {},
}


class Planted:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> Any:
        return (os.mkdir, (os.environ["PLANTED"],))


def test_a_pickle_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED", str(tmp_path / "planted"))
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    path = folder / "step-00000003.safetensors"
    path.write_bytes(pickle.dumps(Planted()))
    for _ in range(2):
        with pytest.raises(UserError, match=path.name):
            read_checkpoint(path)
        assert newest_checkpoint(tmp_path / "run") is None
        torch.save({"model": Planted()}, path)
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("name", VALID)
def test_invalid_facts_are_refused_even_with_a_matching_digest(name: str, tmp_path: Path) -> None:
    values = ["x" * 200, [-1], {"history": None}, -1, True]
    refused = [value for value in values if not FACTS[name](value)]
    assert len(refused) >= 3
    for value in refused:
        path = write_checkpoint(tmp_path, Checkpoint(3, {}, VALID | {name: value}), keep=1)
        with pytest.raises(UserError, match=f"its {name} is "):
            read_checkpoint(path)


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 100_000_000, 15, 20):
        write_checkpoint(tmp_path, Checkpoint(step, {"x": torch.tensor([1.0])}, VALID), keep=2)
    assert [read_checkpoint(path).step for path in checkpoint_files(tmp_path)] == [100_000_000, 20]


@pytest.mark.parametrize(("every", "due"), [("0", []), ("3", [3, 6, 9]), ("0.0s", []), ("900s", [])])
def test_the_schedule(every: str, due: list[int]) -> None:
    schedule = CheckpointSchedule(every)
    assert [step for step in range(1, 11) if schedule.due(step)] == due
    assert schedule.enabled == (every in ("3", "900s"))


@pytest.mark.parametrize("every", ["", "s", "-1", "1.5", "5 m", "1e3", "99999999999", "٣"])
def test_intervals_that_are_refused(every: str) -> None:
    with pytest.raises(UserError, match="checkpoint_every is "):
        Config(checkpoint_every=every)
