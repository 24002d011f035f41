"""The device, dtype, threads and CPU kernels of a run, selected when the run starts and never at import."""

import contextlib
import ctypes
import os
import platform
import re
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from fastcifar.config import Config, CpuKernels
from fastcifar.errors import UserError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
KERNEL_AMP = {"winograd": "float32", "winograd-fp16": "float32", "amx": "bfloat16"}
"""The type of the layers around the kernels."""
KERNEL_NEEDS = {"winograd-fp16": "AVX-512 FP16", "amx": "AMX"}
ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA = 158, 0x1023, 18  # of Linux on x86-64
CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a run computes on, and how."""

    device: torch.device
    """A GPU of CUDA or ROCm with its index, "mps" or "cpu"."""
    dtype: torch.dtype
    """Of the network's arithmetic."""
    threads: int
    """CPU threads of torch and numba."""
    cpu_kernels: CpuKernels = "torch"
    """Of the network's layers; never "auto"."""

    @property
    def is_gpu(self) -> bool:
        """Whether the device is a GPU of CUDA, ROCm or an Apple chip."""
        return self.device.type != "cpu"

    @property
    def autocast(self) -> torch.autocast:
        """A new autocast context; disabled for float32."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def current(self) -> AbstractContextManager[Any]:
        """Makes the GPU the one that torch uses for "cuda" inside the context; nothing changes on other devices."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else contextlib.nullcontext()

    def synchronise(self) -> None:
        """Waits until the device has finished all queued work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


def select_runtime(config: Config) -> Runtime:
    """The runtime that `config` asks for; raises UserError for a device or a dtype that is missing here.

    Device "auto" is the current GPU of CUDA or ROCm if this torch supports it, else the CPU; "mps" has to be asked for.
    """
    device = _auto_device() if config.device == "auto" else _named_device(config.device)
    needed = KERNEL_AMP.get(config.cpu_kernels) if device.type == "cpu" else None
    if needed and config.amp not in ("auto", needed):
        raise UserError(
            f"cpu_kernels is {config.cpu_kernels}, but amp is {config.amp}; use --amp {needed}, or leave it out"
        )
    auto = DTYPES[needed] if needed else fastest_dtype(device)
    dtype = auto if config.amp == "auto" else DTYPES[config.amp]
    threads = torch.get_num_threads() if config.threads is None else config.threads
    runtime = Runtime(device, dtype, threads, _cpu_kernels(config, device, dtype))
    if device.type == "cuda":
        # for deterministic products; cuBLAS and torch look at it once, at the first product of the process
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if device.type == "cuda" and dtype == torch.bfloat16:
        with runtime.current():
            if not torch.cuda.is_bf16_supported(including_emulation=False):
                raise UserError(f"amp is bfloat16, but {gpu_name(device)} lacks it; use --amp float16")
    return runtime


def _auto_device() -> torch.device:
    """The current GPU, or the CPU if there is none or one that this torch does not support; says the latter once."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", torch.cuda.current_device())
    if reason := _too_old(device):
        _say_once(f"device cpu: {reason}")
        return torch.device("cpu")
    return device


@cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _named_device(name: str) -> torch.device:
    """The device of a name other than "auto"; "cuda" is the current GPU. Raises UserError unless torch can use it."""
    device = torch.device(name)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device is mps, but torch finds no GPU of an Apple chip here; use --device auto")
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        if hidden is not None and hidden.strip() in ("", "-1"):
            raise UserError(f"device is {name}, but CUDA_VISIBLE_DEVICES={hidden!r} hides all GPUs; unset it")
        raise UserError(f"device is {name}, but torch sees no GPU here; use --device cpu, or check the driver")
    found = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    if device.index is None:
        device = found[torch.cuda.current_device()]
    if device not in found:
        names = " and ".join(map(gpu_name, found))
        raise UserError(f"device is {name}, but torch sees only {names}; choose another --device")
    if reason := _too_old(device):
        raise UserError(f"device is {name}, but {reason}; install a torch built for it, or use --device cpu")
    return device


def gpu_name(device: torch.device) -> str:
    """The name of a GPU with its index, such as "cuda:1 (NVIDIA H100)"."""
    return f"{device} ({torch.cuda.get_device_name(device)})"


def _too_old(device: torch.device) -> str:
    """Why this torch build has no code for the GPU; empty if it has, or if the build does not say (ROCm)."""
    built = [int(number) for number in re.findall(r"\b(?:sm|compute)_(\d+)", " ".join(torch.cuda.get_arch_list()))]
    oldest = divmod(min(built, default=0), 10)
    capability = torch.cuda.get_device_capability(device)
    if capability >= oldest:
        return ""
    has, needs = ("{}.{}".format(*version) for version in (capability, oldest))
    return f"{gpu_name(device)} has compute capability {has}, and torch {torch.__version__} needs {needs} or more"


def _cpu_kernels(config: Config, device: torch.device, dtype: torch.dtype) -> CpuKernels:
    """The kernels that compute the layers; "auto" selects those measured to be the fastest on such a CPU."""
    flags = cpu_facts()[1]
    if device.type != "cpu":
        return "torch"
    if not supports(config.cpu_kernels):
        raise UserError(
            f"cpu_kernels is {config.cpu_kernels}, but this CPU lacks {KERNEL_NEEDS[config.cpu_kernels]}; "
            "use --cpu-kernels auto"
        )
    if config.cpu_kernels != "auto":
        return config.cpu_kernels
    if dtype == torch.bfloat16:
        return "amx" if supports("amx") else "torch"
    if dtype != torch.float32:
        return "torch"
    if "avx512_fp16" in flags and config.amp == "auto":
        return "winograd-fp16"
    return "winograd" if "avx512f" in flags else "torch"


def supports(kernels: str) -> bool:
    """Whether this CPU has the instructions of these kernels, a value of `Config.cpu_kernels`."""
    flags = cpu_facts()[1]
    if kernels == "amx":
        return {"amx_bf16", "avx512_fp16"} <= flags and may_use_amx()
    return kernels != "winograd-fp16" or "avx512_fp16" in flags


@cache
def may_use_amx() -> bool:
    """Asks Linux whether this process may use AMX's tiles, as every process must before it does."""
    try:
        return ctypes.CDLL(None).syscall(ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0
    except (OSError, AttributeError):  # not Linux
        return False


def fastest_dtype(device: torch.device) -> torch.dtype:
    """The dtype of the fastest multiplications: of a GPU by its compute capability, of a CPU by its feature flags."""
    if device.type == "cuda":
        major = torch.cuda.get_device_capability(device)[0]
        return torch.bfloat16 if major >= 8 else torch.float16 if major >= 7 else torch.float32
    if device.type != "cpu":
        return torch.float32
    return torch.bfloat16 if has_fast_bfloat16(*cpu_facts()) else torch.float32


def has_fast_bfloat16(vendor: str, flags: frozenset[str]) -> bool:
    """Whether a CPU multiplies bfloat16 faster than float32.

    A CPU with AMX does. With AVX512_BF16 alone, AMD does: 1.8 times as fast on an EPYC. Intel does not, because its dot
    product issues at half the rate of a float32 multiply-add: on a Xeon (model 207) a convolution runs at 186 GFLOP/s
    in bfloat16 and at 349 in float32.
    """
    return "amx_bf16" in flags or ("avx512_bf16" in flags and vendor == "AuthenticAMD")


def _cpuinfo(path: Path) -> dict[str, str]:
    with contextlib.suppress(OSError):
        fields = (line.partition(":") for line in path.read_text().splitlines())
        return {name.strip(): value.strip() for name, _, value in fields}
    return {}


def cpu_facts(path: Path = CPUINFO) -> tuple[str, frozenset[str]]:
    """Vendor and feature flags of the CPU from Linux's cpuinfo; empty on other systems."""
    info = _cpuinfo(path)
    return info.get("vendor_id", ""), frozenset(info.get("flags", "").split())


def cpu_name(path: Path = CPUINFO) -> str:
    """The CPU's model name."""
    return _cpuinfo(path).get("model name") or platform.processor() or platform.machine()


def default_recipe() -> str:
    """The recipe of `make train`: `fast90` where device "auto" is a GPU, else `cpu90`."""
    return "fast90" if _auto_device().type == "cuda" else "cpu90"
