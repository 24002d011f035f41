"""What `bench gpu` asks first: environment, bits of the augmentation, self-check; and the profile of a step."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd import DeviceType  # pyright: ignore[reportPrivateImportUsage]

from bench import environment, kernel_bits, profile, self_check
from bench.report import SECTIONS
from fastcifar.errors import RunFailedError


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_environment(capsys: pytest.CaptureFixture[str]):
    environment.main(["--device", "cpu"])
    facts = last_json(capsys)
    assert (facts["what"], facts["device"], facts["device_name"]) == ("environment", "cpu", "cpu")
    assert facts["versions"]["torch"] == torch.__version__.partition("+")[0] or facts["versions"]["torch"]
    assert {"cuda", "nvcc", "packages", "code_revision"} <= set(facts)


def test_the_kernels_of_this_machine_have_the_bits_of_the_reference(capsys: pytest.CaptureFixture[str]):
    kernel_bits.main(["--device", "cpu", "--quick"])
    found = last_json(capsys)["implementations"]
    assert set(found) == {"Transform", "TorchTransform"}
    assert found["Transform"]["cases"] > 40
    assert all(one["differing"] == 0 for one in found.values())


def test_other_bits_and_kernels_that_do_not_run_are_found(capsys, monkeypatch: pytest.MonkeyPatch):
    def wrong(transform: Any, case: kernel_bits.Case) -> np.ndarray:
        bits = kernel_bits._compiled(transform, case)
        if case.size == 32 and case.dtype == torch.bfloat16:
            bits = bits.copy()
            bits[-1, -1, -1, -1] ^= 1
        return bits

    def broken(*_: Any) -> np.ndarray:
        raise RuntimeError("no libnvvm")

    kinds = {"right": kernel_bits._compiled, "wrong": wrong, "broken": broken}
    monkeypatch.setattr(kernel_bits, "implementations", lambda device: kinds)
    with pytest.raises(RunFailedError, match="wrong and broken"):
        kernel_bits.main(["--device", "cpu", "--quick"])
    printed = capsys.readouterr().out
    found = json.loads(printed.splitlines()[-1])["implementations"]
    assert found["right"]["differing"] == 0
    assert 0 < found["wrong"]["differing"] < found["wrong"]["cases"]
    assert found["broken"]["differing"] == 1
    assert "no libnvvm" in printed


def test_self_check(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    arguments = ["--device", "cpu", "--quick", "--recipes", "fast90", "resnet24"]
    self_check.main(arguments)
    found = last_json(capsys)["recipes"]
    assert list(found) == ["fast90", "resnet24"]
    assert all(one["findings"] == [] and set(one["paths"]) == {"augmentation", "step"} for one in found.values())
    monkeypatch.setattr(self_check, "self_check", lambda config: (["wrong pixels"], {"step": "eager"}))
    with pytest.raises(RunFailedError, match="fast90, resnet24"):
        self_check.main(arguments)
    assert last_json(capsys)["recipes"]["resnet24"]["findings"] == ["wrong pixels"]


def event(name: str, start: float, end: float, device: DeviceType = DeviceType.CUDA) -> Any:
    time_range = SimpleNamespace(start=start, end=end, elapsed_us=lambda: end - start)
    return SimpleNamespace(name=name, device_type=device, time_range=time_range, self_cpu_time_total=end - start)


def test_busy_time_counts_overlapping_kernels_once():
    assert profile.busy_us([(0, 10), (5, 12), (20, 30), (21, 22)]) == 22
    assert profile.busy_us([]) == 0


def test_the_work_of_a_gpu_is_summed_by_name():
    events = [
        event("conv", 0, 1000), event("gelu", 1500, 2000), event("conv", 2000, 3000),
        event("Optimizer.step#Muon.step", 0, 9000), event("cudaGraphLaunch", 0, 5, DeviceType.CPU),
        event("cudaLaunchKernel", 5, 6, DeviceType.CPU), event("aten::conv2d", 0, 50, DeviceType.CPU),
    ]  # fmt: skip
    found = profile._work(events, DeviceType.CUDA, 2, wall_ms=2.0)
    assert (found["busy_ms"], found["gap_ms"]) == (1.25, 0.75)
    assert (found["kernels_per_step"], found["launches_per_step"]) == (1.5, 1.0)
    assert found["kernels"][0] == {"name": "conv", "ms": 1.0, "per_step": 1.0, "share": 0.8}
    nothing = profile._work(events[4:], DeviceType.CUDA, 2, wall_ms=2.0)
    assert (nothing["busy_ms"], nothing["gap_ms"], nothing["kernels"]) == (None, None, [])


def test_profile(small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    profile.main(["--data", str(small_data), "--quick", "--device", "cpu", "--out", str(tmp_path)])
    result = last_json(capsys)
    assert json.loads((tmp_path / "profile-fast90-cpu-n2.json").read_text()) == result
    (one,) = result["sizes"].values()
    assert "aten::convolution_backward" in [kernel["name"] for kernel in one["kernels"]]
    assert one["launches_per_step"] == 0
    section = SECTIONS["profile"]
    header, rows = section.table_of(result)
    assert len(rows) == 1 + len(one["kernels"])
    assert all(len(row) == len(header) for row in rows)
    assert "fast90" in section.note_of(result)
