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
    Placement,
    cpu_facts,
    cpu_name,
    default_recipe,
    fastest_dtype,
    has_fast_bfloat16,
    place,
)
from fastcifar.runtime.threads import using

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
        place(Config(device="cuda"))
    assert str(caught.value) == "device is cuda, but torch sees no GPU here; use --device cpu, or look at the driver"
    assert default_recipe() == "cpu90"


def test_the_cpu_takes_any_type() -> None:
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)):
        placement = place(Config(device="cpu", amp=name, threads=3, cpu_kernels="torch"))  # type: ignore[arg-type]
        assert placement == Placement(torch.device("cpu"), dtype, 3)
    placement = place(Config(device="cpu"))
    assert placement.dtype == fastest_dtype(torch.device("cpu")) in (torch.float32, torch.bfloat16)
    assert placement.threads == torch.get_num_threads()


def test_our_kernels_serve_float32_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they were not asked for, only with AVX-512, on which they were measured."""

    flags: set[str] = set()
    monkeypatch.setattr(device, "cpu_facts", lambda: ("", frozenset(flags)))

    def taken(kernels: str, amp: str = "auto") -> str:
        return place(Config(device="cpu", amp=amp, cpu_kernels=kernels)).cpu_kernels  # type: ignore[arg-type]

    assert [taken(kernels) for kernels in ("auto", "own", "torch")] == ["torch", "own", "torch"]
    with pytest.raises(
        UserError, match=r"^cpu_kernels is half, but this CPU has no AVX-512 for float16; use --cpu-ker"
    ):
        taken("half")
    flags.add("avx512f")
    assert [taken(kernels) for kernels in ("auto", "own", "torch")] == ["own", "own", "torch"]
    flags.add("avx512_fp16")
    assert [taken(kernels) for kernels in ("auto", "half", "own", "torch")] == ["half", "half", "own", "torch"]
    assert taken("auto", "float32") == "own"
    assert taken("own", "bfloat16") == taken("half", "float16") == "torch"
    assert Placement(torch.device("cuda"), torch.float32, 1).cpu_kernels == "torch"


def test_autocast_is_off_in_float32() -> None:
    x = torch.ones(2, 2)
    for dtype in (torch.float32, torch.bfloat16):
        with Placement(torch.device("cpu"), dtype, 1).autocast:
            assert (x @ x).dtype == dtype


def test_thread_counts_inside_and_outside() -> None:
    before = torch.get_num_threads(), numba.get_num_threads()
    most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    with contextlib.suppress(KeyError), using(Placement(torch.device("cpu"), torch.float32, 3)):
        assert (torch.get_num_threads(), numba.get_num_threads()) == (3, min(3, most))
        raise KeyError
    assert (torch.get_num_threads(), numba.get_num_threads()) == before


def test_numba_gets_its_threads_whatever_it_had_before() -> None:
    most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        with using(Placement(torch.device("cpu"), torch.float32, most)):
            assert numba.get_num_threads() == most
        assert numba.get_num_threads() == 1
    finally:
        numba.set_num_threads(before)
