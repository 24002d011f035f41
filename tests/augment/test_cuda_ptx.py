"""The CUDA kernel as PTX, and its cache on disk; neither needs a GPU."""

import ctypes
import itertools
import os
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fastcifar.augment import launch_cuda
from fastcifar.augment.launch_cuda import KINDS
from fastcifar.augment.pixel import BFLOAT16, FLOAT16, FLOAT32
from fastcifar.runtime import numba_cuda

ROOT = Path(__file__).parents[2]


TARGETS = [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)]
OUTPUTS = [(dtype, wide) for dtype in (FLOAT32, BFLOAT16, FLOAT16) for wide in (True, False)]
# a compilation takes seconds: every output and every target once, and all other pairs with -m slow
SOME = list(zip([*OUTPUTS, (BFLOAT16, True)], TARGETS, strict=True))
REST = [pair for pair in itertools.product(OUTPUTS, TARGETS) if pair not in SOME]


@cache
def compiled(dtype: int, wide: bool, capability: tuple[int, int]) -> str:
    kernel_cuda = import_module("fastcifar.augment.kernel_cuda")
    signature = kernel_cuda.signature(dtype, wide)
    return numba_cuda.compile_to_ptx(kernel_cuda.build(dtype, wide), signature, capability)


@pytest.fixture
def no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's module is imported anew, and neither the import nor what follows may look for a GPU."""
    numba_cuda.import_numba_cuda()
    from numba.cuda.cudadrv.driver import Driver

    for owner, name in ((torch.cuda, "is_available"), (torch.cuda, "init"), (Driver, "ensure_initialized")):
        monkeypatch.setattr(owner, name, lambda *_: pytest.fail("looked for a GPU"))
    monkeypatch.delitem(sys.modules, "fastcifar.augment.kernel_cuda", raising=False)


@pytest.mark.usefixtures("no_probe")
@pytest.mark.parametrize(
    ("output", "capability"), [*SOME, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in REST)]
)
def test_ptx_loads_16_bytes_stores_16_bytes_if_wide_and_spills_nothing(
    output: tuple[int, bool], capability: tuple[int, int]
) -> None:
    text, (dtype, wide) = compiled(*output, capability), output
    assert re.findall(r"\.target (\S+)", text) == [f"sm_{capability[0]}{capability[1]}"]
    narrow = "u32" if dtype == FLOAT32 else "u16"
    assert set(re.findall(r"st\.global\.(\S*)", text)) == {"v2.u64" if wide else narrow}
    assert len(re.findall(r"ld\.global\.v2\.u64", text)) == 1  # the image's bytes; the others are single numbers
    assert ".local" not in text
    assert "fma.rn.f32" in text


@pytest.mark.usefixtures("no_probe")
@pytest.mark.parametrize(
    "output",
    [(BFLOAT16, True), *(pytest.param(one, marks=pytest.mark.slow) for one in OUTPUTS if one != (BFLOAT16, True))],
)
def test_it_compiles_with_the_instructions_of_sm_90a_alone(output: tuple[int, bool]) -> None:
    """Runs use plain sm_90, which newer GPUs translate too."""
    kernel_cuda, cuda = import_module("fastcifar.augment.kernel_cuda"), numba_cuda.import_numba_cuda()
    text = cuda.compile_ptx(kernel_cuda.build(*output), kernel_cuda.signature(*output), cc=(9, 0, "a"))[0]
    assert re.findall(r"\.target (\S+)", text) == ["sm_90a"]
    assert ".local" not in text


@pytest.mark.parametrize(("output", "capability"), SOME[: len(OUTPUTS)])
def test_the_launcher_packs_what_the_ptx_takes(output: tuple[int, bool], capability: tuple[int, int]) -> None:
    dtype, wide = output
    entries = re.findall(r"\.visible \.entry (\w+)\((.*?)\)", compiled(dtype, wide, capability), re.DOTALL)
    assert len(entries) == 1
    taken = re.findall(r"\.param \.(\w)(\d+)(?: \.ptr \.align \d+)? \w+_param_(\d+)", entries[0][1])
    packed = [("u", str(8 * ctypes.sizeof(kind)), str(i)) for i, kind in enumerate(KINDS)]
    assert taken == packed
    names = import_module("fastcifar.augment.kernel_cuda").build(dtype, wide).__code__.co_varnames[: len(KINDS)]
    assert names == (
        "stored", "indices", "sample_ids", "state", "scale_and_bias", "out",
        "pad", "reflect", "crop_size", "flip", "cutout", "size",
    )  # fmt: skip


# The cache of the PTX


@pytest.fixture
def compilations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The capabilities for which something was compiled; the cache is empty."""
    done: list[tuple[int, int]] = []

    def compile_to_ptx(function: Any, arguments: Any, capability: tuple[int, int]) -> str:
        done.append(capability)
        return f"PTX number {len(done)}\n"

    monkeypatch.setattr(numba_cuda, "compile_to_ptx", compile_to_ptx)
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path))
    return done


def test_ptx_is_compiled_once_for_a_kind_of_output_and_gpu(compilations: list[tuple[int, int]]) -> None:
    asked = [(BFLOAT16, True, (9, 0)), (FLOAT32, True, (9, 0)), (BFLOAT16, False, (9, 0)), (BFLOAT16, True, (8, 0))]
    first = [launch_cuda.ptx(*each) for each in asked]
    assert first == [launch_cuda.ptx(*each) for each in asked]
    assert compilations == [(9, 0), (9, 0), (9, 0), (8, 0)]


@pytest.mark.parametrize("what", ["source_digest", "metadata"])
def test_other_sources_and_other_versions_are_compiled_anew(
    what: str, compilations: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = {
        "source_digest": lambda *_: "another",
        "metadata": SimpleNamespace(distributions=lambda name: [SimpleNamespace(version="99")]),
    }
    launch_cuda.ptx(BFLOAT16, True, (9, 0))
    launch_cuda._versions.cache_clear()
    try:
        monkeypatch.setattr(launch_cuda, what, changed[what])
        launch_cuda.ptx(BFLOAT16, True, (9, 0))
    finally:
        launch_cuda._versions.cache_clear()
    assert len(compilations) == 2


def test_a_process_that_finds_the_ptx_does_not_import_the_compiler(tmp_path: Path) -> None:
    """Also that it compiles with the other NumPy: 2.5 has no row_stack, which numba-cuda refers to, and 2.4 has it."""
    code = """
import sys
import numpy as np
if "row_stack" in vars(np):
    del np.row_stack
else:
    np.row_stack = np.vstack
from fastcifar.augment import transform_cuda
from fastcifar.runtime import numba_cuda
from fastcifar.augment.launch_cuda import ptx
before = "numba.cuda" in sys.modules
print(ptx(1, True, (9, 0)).count(".entry"), before, "numba.cuda" in sys.modules)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path)}
    printed = [
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert printed == ["1 False True\n", "1 False False\n"]
