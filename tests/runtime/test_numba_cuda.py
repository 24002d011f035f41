"""numba-cuda as a compiler: imported in one place, which finds the libraries it needs or says what is missing."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fastcifar
from fastcifar.errors import UserError
from fastcifar.runtime import numba_cuda
from fastcifar.runtime.numba_cuda import compile_to_ptx, import_numba_cuda


def test_row_stack_is_there_without_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(np, "row_stack", raising=False)
    assert import_numba_cuda().__name__ == "numba.cuda"
    assert np.row_stack is np.vstack  # type: ignore[attr-defined]  # noqa: NPY201


def test_every_import_of_it_goes_through_one_function() -> None:
    package = Path(fastcifar.__file__).parent
    imports = ("numba.cuda", "numba import cuda", "import numba_cuda")
    found = {
        path.name
        for path in package.rglob("*.py")
        for line in path.read_text().splitlines()
        if "import" in line and "runtime import" not in line and any(text in line for text in imports)
    }
    assert found == {"numba_cuda.py"}


@pytest.fixture
def toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CUDA toolkit whose nvcc is on PATH by a link; numba-cuda's packages have no nvvm, and no variable names one."""
    for folder in ("toolkit/bin", "toolkit/nvvm", "bin"):
        (tmp_path / folder).mkdir(parents=True)
    nvcc = tmp_path / "toolkit/bin/nvcc"
    nvcc.touch(mode=0o755)
    (tmp_path / "bin/nvcc").symlink_to(nvcc)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.setattr(numba_cuda.metadata, "distributions", lambda name: [])
    return tmp_path / "toolkit"


@pytest.fixture
def cuda_home(monkeypatch: pytest.MonkeyPatch) -> Callable[[], str | None]:
    """What CUDA_HOME is after the import; the environment is restored afterwards."""
    environment = dict(os.environ)
    monkeypatch.setattr(os, "environ", environment)

    def imported() -> str | None:
        import_numba_cuda()
        return environment.get("CUDA_HOME")

    return imported


def test_the_toolkit_of_nvcc_is_used_where_pip_brought_no_nvvm(toolkit: Path, cuda_home: Callable) -> None:
    assert cuda_home() == str(toolkit)


def test_an_nvcc_that_is_a_script_elsewhere_does_not_name_a_toolkit(toolkit: Path) -> None:
    shutil.rmtree(toolkit / "nvvm")
    assert numba_cuda.toolkit_folder() in (None, Path("/usr/local/cuda"))


@pytest.mark.parametrize("variable", ["CUDA_HOME", "CUDA_PATH"])
def test_the_users_toolkit_is_left(
    variable: str, toolkit: Path, monkeypatch: pytest.MonkeyPatch, cuda_home: Callable
) -> None:
    os.environ[variable] = "/mine"
    assert cuda_home() == ("/mine" if variable == "CUDA_HOME" else None)


def test_a_package_with_nvvm_is_enough(toolkit: Path, monkeypatch: pytest.MonkeyPatch, cuda_home: Callable) -> None:
    monkeypatch.setattr(numba_cuda.metadata, "distributions", lambda name: [SimpleNamespace()])
    assert cuda_home() is None


def missing(*_: object) -> Any:
    raise RuntimeError("Failure finding libnvvm.so")


@pytest.mark.parametrize(
    ("place", "replacement"),
    [
        ("numba.cuda.cudadrv.nvvm.NVVM", missing),
        ("numba.cuda.cudadrv.nvrtc.get_supported_ccs", missing),
        ("numba.cuda.cudadrv.libs.get_libdevice", lambda: None),
        ("numba.cuda.cudadrv.libs.get_libdevice", lambda: "/nowhere/libdevice.10.bc"),
    ],
)
def test_a_missing_library_says_how_to_install_it(
    place: str, replacement: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_numba_cuda()
    monkeypatch.setattr(place, replacement)
    with pytest.raises(UserError, match=r"nvidia-nvvm.*CUDA_HOME"):
        compile_to_ptx(lambda: None, (), (9, 0))


def test_without_numba_cuda_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba_cuda", None)
    with pytest.raises(UserError, match="pip install numba-cuda"):
        compile_to_ptx(lambda: None, (), (9, 0))


@pytest.mark.parametrize(
    ("capability", "unknown_to_nvvm", "target"),
    [((8, 6), [], "sm_86"), ((9, 9), [], "sm_90"), ((99, 0), ["121"], "sm_120"), ((9, 0), ["90", "89"], "sm_88")],
)
def test_a_gpu_that_the_libraries_do_not_know_gets_ptx_for_the_newest_that_they_know(
    capability: tuple[int, int], unknown_to_nvvm: list[str], target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_numba_cuda()
    from numba.cuda.cudadrv import nvrtc, nvvm

    def check_options(self: Any, options: list[str]) -> bool:
        return not any(option.endswith(f"_{cc}") for option in options for cc in unknown_to_nvvm)

    def known() -> list[tuple[int, int]]:
        return [(7, 5), (8, 0), (8, 6), (8, 8), (8, 9), (9, 0), (12, 0), (12, 1)]

    monkeypatch.setattr(nvrtc, "get_supported_ccs", known)
    monkeypatch.setattr(nvvm.NVVM, "check_options", check_options)
    assert f".target {target}\n" in compile_to_ptx(lambda: None, (), capability)


def test_a_gpu_that_is_too_old_is_refused() -> None:
    with pytest.raises(UserError, match=r"5\.0"):
        compile_to_ptx(lambda: None, (), (5, 0))
