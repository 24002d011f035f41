"""The device, dtype, threads and CPU kernels of a run, selected when the run starts and never at import."""

import contextlib
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from fastcifar.config import Config, CpuKernels
from fastcifar.errors import UserError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a run computes on, and how."""

    device: torch.device
    dtype: torch.dtype
    """Of the network's arithmetic."""
    threads: int
    """CPU threads of torch and numba."""
    cpu_kernels: CpuKernels = "torch"
    """Of the network's layers; never "auto"."""

    @property
    def autocast(self) -> torch.autocast:
        """A new autocast context; disabled for float32."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def synchronise(self) -> None:
        """Waits until the device has finished all queued work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def select_runtime(config: Config) -> Runtime:
    """The runtime that `config` asks for; raises UserError for a missing device or a dtype that it lacks."""
    has_gpu = torch.cuda.is_available()
    if config.device == "cuda" and not has_gpu:
        raise UserError("device is cuda, but torch sees no GPU here; use --device cpu, or check the driver")
    device = torch.device("cuda" if config.device == "cuda" or (config.device == "auto" and has_gpu) else "cpu")
    needs_float32 = device.type == "cpu" and config.cpu_kernels.startswith("winograd")
    if needs_float32 and config.amp not in ("auto", "float32"):
        raise UserError(
            f"cpu_kernels is {config.cpu_kernels}, but amp is {config.amp}; use --amp float32, or leave it out"
        )
    auto = torch.float32 if needs_float32 else fastest_dtype(device)
    dtype = auto if config.amp == "auto" else DTYPES[config.amp]
    if device.type == "cuda" and dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported():
        raise UserError(f"amp is bfloat16, but {torch.cuda.get_device_name()} lacks it; use --amp float16")
    threads = torch.get_num_threads() if config.threads is None else config.threads
    return Runtime(device, dtype, threads, _cpu_kernels(config, device, dtype))


def _cpu_kernels(config: Config, device: torch.device, dtype: torch.dtype) -> CpuKernels:
    """The kernels that compute the layers; "auto" selects those measured to be the fastest on such a CPU."""
    if device.type != "cpu" or dtype != torch.float32:
        return "torch"
    flags = cpu_facts()[1]
    if config.cpu_kernels == "winograd-fp16" and "avx512_fp16" not in flags:
        raise UserError("cpu_kernels is winograd-fp16, but this CPU lacks AVX-512 FP16; use --cpu-kernels winograd")
    if config.cpu_kernels != "auto":
        return config.cpu_kernels
    if "avx512_fp16" in flags and config.amp == "auto":
        return "winograd-fp16"
    return "winograd" if "avx512f" in flags else "torch"


def fastest_dtype(device: torch.device) -> torch.dtype:
    """The dtype of the fastest multiplications: of a GPU by its compute capability, of a CPU by its feature flags."""
    if device.type == "cuda":
        major = torch.cuda.get_device_capability()[0]
        return torch.bfloat16 if major >= 8 else torch.float16 if major >= 7 else torch.float32
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
    """The recipe of `make train`: `fast90` where there is a GPU, else `cpu90`."""
    return "fast90" if torch.cuda.is_available() else "cpu90"
