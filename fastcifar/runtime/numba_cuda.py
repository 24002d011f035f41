"""The only place that imports `numba.cuda`: a compiler from Python to PTX, which needs neither a GPU nor a driver."""

import importlib
import os
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from fastcifar.errors import UserError, reason

NVVM_PACKAGES = ("nvidia-nvvm", "nvidia-cuda-nvcc-cu12")


def import_numba_cuda() -> Any:
    """The module `numba.cuda`; importing it needs neither a GPU nor a driver. Raises ImportError without numba-cuda.

    Sets the environment variable CUDA_HOME if numba-cuda would not find the compiler's libraries without it.
    """
    # numba-cuda up to 0.30.4 refers to np.row_stack when it first compiles a kernel, and NumPy 2.5 removed that alias
    # of np.vstack. Delete this line once pyproject.toml requires a numba-cuda without the reference.
    if not hasattr(np, "row_stack"):
        np.row_stack = np.vstack  # type: ignore[attr-defined]  # noqa: NPY201
    # numba-cuda infers the toolkit's folder from the place of nvrtc, but not from an nvrtc that pip installed
    if not any(os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")) and not _has_nvvm_package():
        home = toolkit_folder()
        if home is not None:
            os.environ["CUDA_HOME"] = str(home)
    import numba_cuda  # noqa: F401  (without it, numba.cuda is numba's own, older and without CUDA 13)
    from numba import cuda

    return cuda


def _has_nvvm_package() -> bool:
    return any(True for name in NVVM_PACKAGES for _ in metadata.distributions(name=name))


def toolkit_folder() -> Path | None:
    """The folder of a CUDA toolkit with libnvvm: that of the `nvcc` on PATH, or /usr/local/cuda; None without one."""
    nvcc = shutil.which("nvcc")
    beside_nvcc = [Path(nvcc).resolve().parents[1]] if nvcc else []
    return next((home for home in (*beside_nvcc, Path("/usr/local/cuda")) if (home / "nvvm").is_dir()), None)


def compile_to_ptx(function: Callable[..., None], arguments: tuple[Any, ...], capability: tuple[int, int]) -> str:
    """PTX of the kernel `function` with numba types `arguments`, for GPUs of at least a compute capability.

    It is compiled for the newest capability that the installed libraries know and that is not above `capability`; the
    driver translates PTX for newer GPUs. Raises UserError without numba-cuda, without the libraries it needs, and if
    they no longer support a GPU so old.
    """
    try:
        cuda = import_numba_cuda()
        known = _known_capability(capability)
    except ImportError as error:
        raise UserError(f"numba-cuda, which a GPU needs, fails ({error}): pip install numba-cuda[cu13]") from None
    return cuda.compile_ptx(function, arguments, cc=known, debug=False, opt=True)[0]


def _known_capability(capability: tuple[int, int]) -> tuple[int, int]:
    # type checkers would see numba's own numba.cuda
    libs, nvrtc, nvvm = (importlib.import_module(f"numba.cuda.cudadrv.{name}") for name in ("libs", "nvrtc", "nvvm"))

    try:  # they raise a RuntimeError or a class of their own that says where they looked
        supported = nvrtc.get_supported_ccs()
        compiler = nvvm.NVVM()
        libdevice = Path(libs.get_libdevice() or "libdevice.10.bc")
    except Exception as error:
        raise UserError(_missing(reason(error))) from error
    if not libdevice.is_file():
        raise UserError(_missing(f"no file {libdevice}"))
    older = [cc for cc in supported if cc <= capability]
    for cc in sorted(older, reverse=True):  # nvrtc may be newer than nvvm
        if compiler.check_options([f"-arch=compute_{cc[0]}{cc[1]}"]):
            return cc
    raise UserError(
        f"the GPU has compute capability {capability[0]}.{capability[1]}, which the installed CUDA toolkit no longer "
        "supports; use --device cpu"
    )


def _missing(what: str) -> str:
    return (
        "compiling a GPU's kernel needs the CUDA libraries nvvm, with its libdevice, and nvrtc: pip install "
        f"nvidia-nvvm nvidia-cuda-nvrtc, or set CUDA_HOME to the folder of the CUDA toolkit ({what})"
    )
