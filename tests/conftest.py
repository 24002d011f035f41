"""A prepared synthetic set, a configuration that learns it in a second, a finished run, GPUs, the command line."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fastcifar.__main__ import main
from fastcifar.cli.console import run_command
from fastcifar.config import AugmentConfig, Config
from fastcifar.data.prepared import write_set
from fastcifar.data.sources.synthetic import synthetic_set
from fastcifar.evaluation.flip_tta import FlipTta
from fastcifar.models.speednet import SpeedNetConfig
from fastcifar.optim.muon import MuonConfig
from fastcifar.schedules.one_cycle import OneCycle


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="torch sees no GPU here"))


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder of 600 training and 200 test images; read only."""
    folder = tmp_path_factory.mktemp("small_data")
    write_set(synthetic_set(train=600, test=200, seed=3), folder)
    return folder


@pytest.fixture(scope="session")
def tiny(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Learns `small_data` in a second: 6 epochs of 12 steps, in arithmetic that is the same choice on every CPU."""
    return Config(
        recipe="smoke",
        epochs=6,
        batch_size=50,
        label_smoothing=0.2,
        resolution=((1.0, 24),),
        evaluation_batch_size=64,
        model=SpeedNetConfig(widths=(16, 32, 32), activation="relu", logit_scale=1 / 32),
        optimizer=MuonConfig(),
        schedule=OneCycle(peak_epoch=0, start=1, end=0),
        augment=AugmentConfig(pad=2, pad_mode="reflect", flip="none", cutout=0),
        amp="float32",
        cpu_kernels="torch",
        device="cpu",
        threads=1,
        data=small_data,
        runs=tmp_path_factory.mktemp("runs"),
    )


@dataclass(frozen=True)
class Run:
    """A finished run of the session; read only."""

    config: Config
    folder: Path
    record: dict[str, Any]


@pytest.fixture(scope="session")
def finished(tiny: Config) -> Run:
    """A run of `tiny`, evaluated after every second epoch and at the end with flip TTA."""
    from fastcifar.training.trainer import train

    config = replace(tiny, evaluate_every=2, evaluation=FlipTta())
    folder, record = train(config)
    return Run(config, folder, record)


@dataclass(frozen=True)
class FakeGpu:
    """What torch says of a GPU that is not there."""

    name: str = "NVIDIA H100"
    capability: tuple[int, int] = (9, 0)
    free: int = 70 * 2**30
    total: int = 80 * 2**30
    reserved: int = 0
    has_bfloat16: bool = True


@pytest.fixture
def fake_gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes torch see GPUs, given as fields of `FakeGpu`, the first as the current one. They compute nothing."""

    def install(*fields: dict[str, Any], built_for: str = "sm_75 sm_80 sm_86 sm_90a sm_100 compute_120") -> None:
        gpus, current = [FakeGpu(**each) for each in fields], 0

        def of(device: Any = None) -> FakeGpu:
            index = device if isinstance(device, int) else torch.device(device or "cuda").index
            return gpus[current if index is None else index]

        @contextlib.contextmanager
        def use(device: torch.device) -> Iterator[None]:
            nonlocal current
            before, current = current, device.index
            yield
            current = before

        functions = {
            "is_available": lambda: bool(gpus),
            "device_count": lambda: len(gpus),
            "current_device": lambda: current,
            "device": use,
            "get_arch_list": built_for.split,
            "get_device_name": lambda device=None: of(device).name,
            "get_device_capability": lambda device=None: of(device).capability,
            "is_bf16_supported": lambda including_emulation=True: of().has_bfloat16 or including_emulation,
            "mem_get_info": lambda device=None: (of(device).free, of(device).total),
            "memory_reserved": lambda device=None: of(device).reserved,
        }
        for name, function in functions.items():
            monkeypatch.setattr(torch.cuda, name, function)

    return install


@dataclass(frozen=True)
class Done:
    """The exit code of a command and what it printed."""

    code: int
    out: str
    err: str

    def refused(self) -> str:
        """The error line of a command that exits with 2 and prints nothing else."""
        assert (self.code, self.out) == (2, ""), self
        assert self.err.startswith("error: "), self
        assert self.err.endswith("\n"), self
        assert self.err.count("\n") == 1, self
        return self.err.removeprefix("error: ").removesuffix("\n")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs `python -m fastcifar ARGUMENTS` within this process."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["fastcifar", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            run_command(main)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        printed = capsys.readouterr()
        return Done(code, printed.out, printed.err)

    return run
