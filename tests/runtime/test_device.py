"""The device, dtype, threads and CPU kernels of a run. CPU flags and GPUs are given: any machine can run this."""

import contextlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
import pytest
import torch

from fastcifar.config import Config
from fastcifar.errors import UserError
from fastcifar.runtime import device
from fastcifar.runtime.device import Runtime, cpu_facts, cpu_name, default_recipe, select_runtime
from fastcifar.runtime.threads import apply_threads

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("vendor", "flags", "dtype", "kernels"),
    [
        ("GenuineIntel", "avx2", "float32", "torch"),
        ("GenuineIntel", "avx2 avx512f", "float32", "winograd"),
        ("GenuineIntel", "avx512f avx512_bf16", "float32", "winograd"),
        ("GenuineIntel", "avx512f avx512_bf16 avx512_fp16", "float32", "winograd-fp16"),
        ("GenuineIntel", "avx512f avx512_bf16 avx512_fp16 amx_bf16 amx_tile", "bfloat16", "amx"),
        ("GenuineIntel", "avx512f avx512_bf16 amx_bf16 amx_tile", "bfloat16", "torch"),
        ("AuthenticAMD", "avx2", "float32", "torch"),
        ("AuthenticAMD", "avx512f avx512_bf16", "bfloat16", "torch"),
        ("", "", "float32", "torch"),
    ],
)
def test_what_auto_selects_on_a_cpu(
    vendor: str, flags: str, dtype: str, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "cpu_facts", lambda: (vendor, frozenset(flags.split())))
    monkeypatch.setattr(device, "may_use_amx", lambda: True)
    expected = Runtime(CPU, getattr(torch, dtype), torch.get_num_threads(), kernels)  # type: ignore[arg-type]
    assert select_runtime(Config(device="cpu")) == expected


@pytest.mark.parametrize(
    ("flags", "kernels", "amp", "expected"),
    [
        ("", "winograd", "auto", "winograd"),
        ("avx512f avx512_fp16", "torch", "auto", "torch"),
        ("avx512f avx512_fp16", "winograd", "auto", "winograd"),
        ("avx512f avx512_fp16", "winograd-fp16", "float32", "winograd-fp16"),
        ("avx512f avx512_fp16", "auto", "float32", "winograd"),
        ("avx512f amx_bf16", "winograd", "auto", "winograd"),  # where auto alone would take bfloat16
        ("avx512f avx512_fp16 amx_bf16", "winograd-fp16", "auto", "winograd-fp16"),
        ("avx512f amx_bf16", "torch", "bfloat16", "torch"),
        ("avx512f avx512_fp16 amx_bf16", "amx", "auto", "amx"),
        ("avx512f avx512_fp16 amx_bf16", "auto", "bfloat16", "amx"),
    ],
)
def test_configured_kernels_are_used(
    flags: str, kernels: str, amp: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "cpu_facts", lambda: ("", frozenset(flags.split())))
    monkeypatch.setattr(device, "may_use_amx", lambda: True)
    config = Config(device="cpu", amp=amp, cpu_kernels=kernels, threads=3)  # type: ignore[arg-type]
    dtype = {"auto": torch.bfloat16 if kernels == "amx" else torch.float32}.get(amp) or getattr(torch, amp)
    assert select_runtime(config) == Runtime(CPU, dtype, 3, expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kernels", "amp"), [("winograd", "bfloat16"), ("winograd-fp16", "float16"), ("amx", "float32")]
)
def test_kernels_and_arithmetic_that_exclude_each_other(kernels: Any, amp: Any) -> None:
    with pytest.raises(UserError, match=f"cpu_kernels is {kernels}, but amp is {amp}"):
        select_runtime(Config(device="cpu", amp=amp, cpu_kernels=kernels))


def test_kernels_are_rejected_without_the_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cpu_facts", lambda: ("GenuineIntel", frozenset({"avx512f"})))
    with pytest.raises(UserError, match="cpu_kernels is winograd-fp16"):
        select_runtime(Config(device="cpu", cpu_kernels="winograd-fp16"))
    with pytest.raises(UserError, match="cpu_kernels is amx"):
        select_runtime(Config(device="cpu", cpu_kernels="amx"))


CUDA_0, CUDA_1 = torch.device("cuda", 0), torch.device("cuda", 1)
HOPPER, TURING = {"name": "NVIDIA H100"}, {"name": "Tesla T4", "capability": (7, 5), "has_bfloat16": False}
PASCAL = {"name": "Tesla P100", "capability": (6, 0)}
FakeGpus = Callable[..., None]


@pytest.fixture(autouse=True)
def said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_say_once", cache(device._say_once.__wrapped__))


@pytest.mark.parametrize(
    ("hidden", "text"),
    [(None, "device is {}, .*--device cpu"), ("0", "no GPU here"), ("", "DEVICES='' hides"), ("-1", "DEVICES='-1'")],
)
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_missing_gpu_is_rejected(
    name: str, hidden: str | None, text: str, fake_gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    with pytest.raises(UserError, match=text.format(name)):
        select_runtime(Config(device=name))
    assert select_runtime(Config()).device == CPU
    assert default_recipe() == "cpu90"


@pytest.mark.parametrize(
    ("name", "found", "dtype"),
    [
        ("auto", CUDA_0, torch.bfloat16),
        ("cuda", CUDA_0, torch.bfloat16),
        ("cuda:0", CUDA_0, torch.bfloat16),
        ("cuda:1", CUDA_1, torch.float16),
    ],
)
def test_the_gpu_is_the_named_one_and_has_an_index(
    name: str, found: torch.device, dtype: torch.dtype, fake_gpus: FakeGpus
) -> None:
    fake_gpus(HOPPER, TURING)
    runtime = select_runtime(Config(device=name))
    assert (runtime.device, runtime.dtype, runtime.cpu_kernels) == (found, dtype, "torch")
    assert runtime.is_gpu
    with runtime.current():
        assert torch.cuda.current_device() == found.index
    assert torch.cuda.current_device() == 0
    assert default_recipe() == "fast90"


def test_without_a_number_it_is_the_current_gpu(fake_gpus: FakeGpus) -> None:
    fake_gpus(HOPPER, TURING)
    with torch.cuda.device(CUDA_1):
        assert select_runtime(Config(device="cuda")).device == CUDA_1
        assert select_runtime(Config()).device == CUDA_1


def test_a_gpu_that_is_not_there_and_arithmetic_that_it_lacks(fake_gpus: FakeGpus) -> None:
    fake_gpus(HOPPER, TURING)
    with pytest.raises(UserError, match=r"cuda:5.*cuda:0 \(NVIDIA H100\) and cuda:1 \(Tesla T4\)"):
        select_runtime(Config(device="cuda:5"))
    with pytest.raises(UserError, match=r"bfloat16.*Tesla T4"):
        select_runtime(Config(device="cuda:1", amp="bfloat16"))
    assert select_runtime(Config(device="cuda:0", amp="bfloat16")).dtype == torch.bfloat16
    assert select_runtime(Config(device="cuda:0", amp="float32")).dtype == torch.float32


def test_a_gpu_that_torch_no_longer_supports(fake_gpus: FakeGpus, capsys: pytest.CaptureFixture[str]) -> None:
    fake_gpus(PASCAL, HOPPER)
    for name in ("cuda", "cuda:0"):
        with pytest.raises(UserError, match=r"Tesla P100.* 6\.0.* 7\.5"):
            select_runtime(Config(device=name))
    assert select_runtime(Config(device="cuda:1")).device == CUDA_1
    assert select_runtime(Config(device="cpu")).device == CPU
    assert capsys.readouterr().err == ""
    assert [select_runtime(Config()).device for _ in range(2)] == [CPU, CPU]
    assert default_recipe() == "cpu90"
    (line,) = capsys.readouterr().err.splitlines()
    assert "Tesla P100" in line


def test_rocm_builds_name_no_compute_capability(fake_gpus: FakeGpus) -> None:
    fake_gpus({"name": "AMD Instinct MI300X", "capability": (9, 4)}, built_for="gfx90a gfx942 gfx1100")
    assert select_runtime(Config()).device == CUDA_0


def test_mps(fake_gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpus()
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match="device is mps"):
        select_runtime(Config(device="mps"))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    waited = []
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append(1))
    runtime = select_runtime(Config(device="mps"))
    assert (runtime.device.type, runtime.dtype, runtime.is_gpu) == ("mps", torch.float32, True)
    with runtime.current():
        runtime.synchronise()
    assert waited
    assert select_runtime(Config()).device == CPU


def test_nothing_waits_and_nothing_is_switched_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device", lambda *_: pytest.fail("looked for a GPU"))
    runtime = Runtime(CPU, torch.float32, 1)
    with runtime.current():
        runtime.synchronise()
    assert not runtime.is_gpu


def test_cpuinfo(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: A CPU: fast\nflags\t\t: fpu avx2\n\n")
    assert cpu_facts(path) == ("AuthenticAMD", frozenset({"fpu", "avx2"}))
    assert cpu_name(path) == "A CPU: fast"
    assert cpu_facts(tmp_path / "none") == ("", frozenset())
    assert cpu_name(tmp_path / "none")


def test_autocast_is_disabled_for_float32() -> None:
    x = torch.ones(2, 2)
    for dtype in (torch.float32, torch.bfloat16):
        with Runtime(CPU, dtype, 1).autocast:
            assert (x @ x).dtype == dtype


@pytest.mark.parametrize("numba_threads", [1, None])
def test_thread_counts_are_set_and_restored(numba_threads: int | None) -> None:
    most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    initial = numba.get_num_threads()
    numba.set_num_threads(numba_threads or initial)
    before = torch.get_num_threads(), numba.get_num_threads()
    try:
        with contextlib.suppress(KeyError), apply_threads(Runtime(CPU, torch.float32, most + 1)):
            assert (torch.get_num_threads(), numba.get_num_threads()) == (most + 1, most)
            raise KeyError
        assert (torch.get_num_threads(), numba.get_num_threads()) == before
    finally:
        numba.set_num_threads(initial)
