"""Where and in which arithmetic a run takes place."""

import contextlib
from pathlib import Path

import numba
import pytest
import torch

from fastcifar.config import Config
from fastcifar.errors import UserError
from fastcifar.runtime import device
from fastcifar.runtime.device import (
    Runtime,
    cpu_facts,
    cpu_name,
    default_recipe,
    fastest_dtype,
    has_fast_bfloat16,
    select_runtime,
)
from fastcifar.runtime.threads import apply_threads

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")


@pytest.mark.parametrize(
    ("vendor", "flags", "fast"),
    [
        ("GenuineIntel", "avx2 avx512f", False),
        ("GenuineIntel", "avx512f avx512_bf16", False),
        ("GenuineIntel", "avx512f avx512_bf16 amx_bf16 amx_tile", True),
        ("AuthenticAMD", "avx2", False),
        ("AuthenticAMD", "avx512f avx512_bf16", True),
        ("", "", False),
    ],
)
def test_which_cpus_are_fast_in_bfloat16(vendor: str, flags: str, fast: bool) -> None:
    assert has_fast_bfloat16(vendor, frozenset(flags.split())) is fast


def test_cpu_facts_are_read_as_linux_tells_them(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: A CPU: fast\nflags\t\t: fpu avx2\n\n")
    assert cpu_facts(cpuinfo) == ("AuthenticAMD", frozenset({"fpu", "avx2"}))
    assert cpu_name(cpuinfo) == "A CPU: fast"


def test_another_system_tells_nothing(tmp_path: Path) -> None:
    assert cpu_facts(tmp_path / "none") == ("", frozenset())
    assert cpu_name(tmp_path / "none")


@needs_no_gpu
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(UserError) as caught:
        select_runtime(Config(device="cuda"))
    assert str(caught.value) == "device is cuda, but torch sees no GPU here; use --device cpu, or look at the driver"
    assert default_recipe() == "cpu90"


def test_the_cpu_takes_any_type() -> None:
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)):
        runtime = select_runtime(Config(device="cpu", amp=name, threads=3, cpu_kernels="torch"))  # type: ignore[arg-type]
        assert runtime == Runtime(torch.device("cpu"), dtype, 3)
    runtime = select_runtime(Config(device="cpu"))
    assert runtime.dtype == fastest_dtype(torch.device("cpu")) in (torch.float32, torch.bfloat16)
    assert runtime.threads == torch.get_num_threads()


def test_our_kernels_serve_float32_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they were not asked for, only with AVX-512, on which they were measured."""

    flags: set[str] = set()
    monkeypatch.setattr(device, "cpu_facts", lambda: ("", frozenset(flags)))

    def taken(kernels: str, amp: str = "auto") -> str:
        return select_runtime(Config(device="cpu", amp=amp, cpu_kernels=kernels)).cpu_kernels  # type: ignore[arg-type]

    assert [taken(kernels) for kernels in ("auto", "winograd", "torch")] == ["torch", "winograd", "torch"]
    with pytest.raises(
        UserError, match=r"^cpu_kernels is half, but this CPU has no AVX-512 for float16; use --cpu-ker"
    ):
        taken("winograd-fp16")
    flags.add("avx512f")
    assert [taken(kernels) for kernels in ("auto", "winograd", "torch")] == ["winograd", "winograd", "torch"]
    flags.add("avx512_fp16")
    assert [taken(kernels) for kernels in ("auto", "winograd-fp16", "winograd", "torch")] == [
        "winograd-fp16",
        "winograd-fp16",
        "winograd",
        "torch",
    ]
    assert taken("auto", "float32") == "winograd"
    assert taken("winograd", "bfloat16") == taken("winograd-fp16", "float16") == "torch"
    assert Runtime(torch.device("cuda"), torch.float32, 1).cpu_kernels == "torch"


def test_autocast_is_off_in_float32() -> None:
    x = torch.ones(2, 2)
    for dtype in (torch.float32, torch.bfloat16):
        with Runtime(torch.device("cpu"), dtype, 1).autocast:
            assert (x @ x).dtype == dtype


def test_thread_counts_inside_and_outside() -> None:
    before = torch.get_num_threads(), numba.get_num_threads()
    most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    with contextlib.suppress(KeyError), apply_threads(Runtime(torch.device("cpu"), torch.float32, 3)):
        assert (torch.get_num_threads(), numba.get_num_threads()) == (3, min(3, most))
        raise KeyError
    assert (torch.get_num_threads(), numba.get_num_threads()) == before


def test_numba_gets_its_threads_whatever_it_had_before() -> None:
    most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        with apply_threads(Runtime(torch.device("cpu"), torch.float32, most)):
            assert numba.get_num_threads() == most
        assert numba.get_num_threads() == 1
    finally:
        numba.set_num_threads(before)
