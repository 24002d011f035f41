"""Trains configurations for the benchmarks: several seeds in one process, or a process of its own for each."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from fastcifar.config import Config
from fastcifar.config.toml import to_toml
from fastcifar.errors import RunFailedError
from fastcifar.files import write_text
from fastcifar.models.resnet import ResNetConfig
from fastcifar.models.speednet import SpeedNetConfig
from fastcifar.recipes import load_config
from fastcifar.runs.record import load_record
from fastcifar.runtime.threads import keep_freed_memory
from fastcifar.training.trainer import Trainer

Device = Literal["auto", "cpu", "cuda"]
Train = Callable[[int], dict[str, Any]]
"""From a seed to the record of its run, whose folder is deleted."""


def recipe_config(name: str, data: Path, device: Device, *, quick: bool = False) -> Config:
    """The recipe `name` on this data; `quick`: a small network for a few steps. UserError for an unknown recipe."""
    config = replace(load_config(name=name), data=data, device=device)
    return quick_config(config) if quick else config


def quick_config(config: Config) -> Config:
    """`config` with a narrow network, batches of 50 and one epoch: works on 600 images, and measures nothing."""
    model = config.model
    if isinstance(model, SpeedNetConfig):
        model = replace(model, widths=(8, 16, 16), logit_scale=1 / 16)
    elif isinstance(model, ResNetConfig):
        model = replace(model, width=4)
    schedule = config.schedule
    if hasattr(schedule, "peak_epoch"):
        schedule = replace(schedule, peak_epoch=0.0)  # type: ignore[call-arg]
    changes: dict[str, Any] = {"epochs": 1.0, "batch_size": 50, "evaluate_every": 0}
    changes |= {"cpu_kernels": "torch", "threads": 1}  # starts quickly, even while others use the CPU
    return replace(config, model=model, schedule=schedule, **changes)


@contextmanager
def in_one_process(config: Config) -> Iterator[Train]:
    """Trains runs of `config` in this process, which prepares network, step and kernels once."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # memory as in `fastcifar train`
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as runs:
        trainer = Trainer(replace(config, runs=Path(runs)))

        def run(seed: int) -> dict[str, Any]:
            folder, record = trainer.train(seed)
            shutil.rmtree(folder, ignore_errors=True)
            return record

        yield run


@contextmanager
def in_own_processes(config: Config) -> Iterator[Train]:
    """Trains each run of `config` by `fastcifar train` in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        write_text(path, to_toml(config))
        yield lambda seed: train_once(["--config", str(path)], seed, config.data)


def train_once(arguments: list[str], seed: int, data: Path) -> dict[str, Any]:
    """Trains in a new process and returns the record; the run folder is deleted. Raises RunFailedError."""
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "fastcifar", "train", *arguments, "--seed", str(seed)]
        command += ["--data", str(data), "--runs", runs]
        if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
            raise RunFailedError(f"the run with seed {seed} failed; see its error message above")
        return load_record(next(Path(runs).iterdir()))
