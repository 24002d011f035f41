"""A simulated GPU: the CPU takes the way of a GPU, with recorded work that runs again instead of being replayed."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cuda_on_cpu import CpuDriver, CpuGpu, named_ptx

from fastcifar.augment import launch_cuda
from fastcifar.augment.transform import Transform
from fastcifar.augment.transform_cuda import CudaTransform
from fastcifar.augment.transform_torch import TorchTransform
from fastcifar.config import AugmentConfig, Config
from fastcifar.evaluation.selective_tta import SelectiveTta
from fastcifar.models.speednet import SpeedNetConfig
from fastcifar.optim.muon import MuonConfig
from fastcifar.runtime.device import select_runtime
from fastcifar.runtime.threads import run_settings
from fastcifar.training import graph
from fastcifar.training.context import RunContext
from fastcifar.training.prepared import PreparedTraining

CPU = torch.device("cpu")


class CudaOnCpu(CudaTransform):
    """The CUDA kernel, compiled for the CPU and launched through a stand-in for the driver."""

    def __init__(self, transform: Transform, device: torch.device) -> None:
        super().__init__(transform, device, DRIVEN)


DRIVEN = CpuGpu()


class SimulatedGpu:
    """What the simulated GPU does, which a test may change before a run is prepared."""

    def __init__(self) -> None:
        self.captures = 0
        self.transform: Any = TorchTransform
        self.fault: Exception | None = None
        """Raised by captures, after the work has run."""

    def capture(self, work: graph.Work) -> graph.Work:
        for _ in range(graph.WARM_UP):
            work()
        if self.fault is not None:
            raise self.fault
        self.captures += 1
        return work

    def use_the_cuda_kernel(self, monkeypatch: pytest.MonkeyPatch) -> CpuDriver:
        """Instead of tensor operations; returns the driver's stand-in."""
        monkeypatch.setattr(launch_cuda, "ptx", named_ptx)
        self.transform = CudaOnCpu
        return DRIVEN.driver


@pytest.fixture
def simulated_gpu(monkeypatch: pytest.MonkeyPatch) -> SimulatedGpu:
    gpu = SimulatedGpu()
    monkeypatch.setattr("fastcifar.models.speednet.WHITENING_IMAGES", 500)  # a CPU is slow with as many as there are
    monkeypatch.setattr("fastcifar.training.context.default_transform", lambda device: gpu.transform)
    monkeypatch.setattr("fastcifar.training.prepared.new_capture", lambda runtime: gpu.capture)
    return gpu


@pytest.fixture(params=["simulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def gpu(request: pytest.FixtureRequest) -> torch.device:
    """The device of a test that needs a GPU: the simulated one, or with `-m gpu` a real one."""
    if request.param == "simulated":
        request.getfixturevalue("simulated_gpu")
        return CPU
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here")
    return torch.device("cuda", torch.cuda.current_device())


class Waiting:
    """torch's mode in which waiting for the GPU is an error; on the simulated one nothing waits."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @contextlib.contextmanager
    def is_an_error(self) -> Iterator[None]:
        if self.device.type != "cuda":
            yield
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*prototype feature", category=UserWarning)
            torch.cuda.set_sync_debug_mode("error")
            try:
                yield
            finally:
                torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def waiting(gpu: torch.device) -> Waiting:
    return Waiting(gpu)


@pytest.fixture
def short(tiny: Config, gpu: torch.device, tmp_path: Path) -> Config:
    """Two epochs and a half of 12 steps, images of 16 and 20 pixels, a stem that freezes after the first epoch."""
    return replace(
        tiny,
        epochs=2.5,
        resolution=((0.6, 16), (1.0, 20)),
        model=SpeedNetConfig(widths=(16, 16), activation="gelu", stem_epochs=1),
        optimizer=MuonConfig(),
        augment=AugmentConfig(pad=2, flip="alternating", cutout=8),
        evaluation=SelectiveTta(),
        device="auto" if gpu.type == "cpu" else str(gpu),
        runs=tmp_path,
    )


@pytest.fixture
def prepared_for() -> Callable[[Config], PreparedTraining]:
    return _prepared


def _prepared(config: Config) -> PreparedTraining:
    context = RunContext(config, select_runtime(config))
    with run_settings(context.runtime, deterministic=False):
        return PreparedTraining(context)
