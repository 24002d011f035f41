"""The device, dtype, threads and CPU kernels of a run. The CPU's flags are given, so that any machine can run this."""

import contextlib
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
        ("GenuineIntel", "avx512f avx512_bf16 avx512_fp16 amx_bf16 amx_tile", "bfloat16", "torch"),
        ("AuthenticAMD", "avx2", "float32", "torch"),
        ("AuthenticAMD", "avx512f avx512_bf16", "bfloat16", "torch"),
        ("", "", "float32", "torch"),
    ],
)
def test_what_auto_selects_on_a_cpu(
    vendor: str, flags: str, dtype: str, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "cpu_facts", lambda: (vendor, frozenset(flags.split())))
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
    ],
)
def test_configured_kernels_are_used_for_float32(
    flags: str, kernels: str, amp: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "cpu_facts", lambda: ("", frozenset(flags.split())))
    config = Config(device="cpu", amp=amp, cpu_kernels=kernels, threads=3)  # type: ignore[arg-type]
    dtype = torch.float32 if amp == "auto" else getattr(torch, amp)
    assert select_runtime(config) == Runtime(CPU, dtype, 3, expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kernels", "amp"), [("winograd", "bfloat16"), ("winograd-fp16", "float16")])
def test_kernels_and_arithmetic_that_exclude_each_other(kernels: Any, amp: Any) -> None:
    with pytest.raises(UserError, match=f"cpu_kernels is {kernels}, but amp is {amp}"):
        select_runtime(Config(device="cpu", amp=amp, cpu_kernels=kernels))


def test_fp16_kernels_are_rejected_without_the_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cpu_facts", lambda: ("GenuineIntel", frozenset({"avx512f"})))
    with pytest.raises(UserError, match="cpu_kernels is winograd-fp16"):
        select_runtime(Config(device="cpu", cpu_kernels="winograd-fp16"))


def test_a_missing_gpu_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="device is cuda"):
        select_runtime(Config(device="cuda"))
    assert select_runtime(Config()).device == CPU
    assert default_recipe() == "cpu90"


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
