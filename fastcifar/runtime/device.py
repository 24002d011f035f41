"""Where and in which arithmetic a run takes place; asked for when a run starts, never at import."""

import contextlib
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from fastcifar.config import Config, CpuKernels
from fastcifar.errors import UserError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Runtime:
    """A run's device, the type of its network's arithmetic, its CPU threads, and whose layers it uses."""

    device: torch.device
    dtype: torch.dtype
    threads: int
    cpu_kernels: CpuKernels = "torch"

    @property
    def autocast(self) -> torch.autocast:
        """A fresh autocast context; without effect in float32."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def synchronise(self) -> None:
        """Waits until the device has done all it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def select_runtime(config: Config) -> Runtime:
    """The runtime that `config` asks for; raises UserError for a device that is not there or a type it lacks."""
    has_gpu = torch.cuda.is_available()
    if config.device == "cuda" and not has_gpu:
        raise UserError("device is cuda, but torch sees no GPU here; use --device cpu, or look at the driver")
    device = torch.device("cuda" if config.device == "cuda" or (config.device == "auto" and has_gpu) else "cpu")
    dtype = fastest_dtype(device) if config.amp == "auto" else DTYPES[config.amp]
    if device.type == "cuda" and dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported():
        raise UserError(f"amp is bfloat16, but {torch.cuda.get_device_name()} lacks it; use --amp float16")
    threads = torch.get_num_threads() if config.threads is None else config.threads
    return Runtime(device, dtype, threads, _cpu_kernels(config, device, dtype))


def _cpu_kernels(config: Config, device: torch.device, dtype: torch.dtype) -> CpuKernels:
    """Whose kernels compute the layers; auto takes those that were measured to be the fastest on such a CPU."""
    if device.type != "cpu" or dtype != torch.float32:
        return "torch"
    flags = cpu_facts()[1]
    if config.cpu_kernels == "winograd-fp16" and "avx512_fp16" not in flags:
        raise UserError("cpu_kernels is half, but this CPU has no AVX-512 for float16; use --cpu-kernels own")
    if config.cpu_kernels != "auto":
        return config.cpu_kernels
    return (
        "winograd-fp16"
        if "avx512_fp16" in flags and config.amp == "auto"
        else "winograd"
        if "avx512f" in flags
        else "torch"
    )


def fastest_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it faster than float32; else float16 on GPUs and float32 on CPUs."""
    if device.type == "cuda":
        if torch.cuda.get_device_capability()[0] >= 8:
            return torch.bfloat16
        return torch.float16 if torch.cuda.get_device_capability()[0] >= 7 else torch.float32
    return torch.bfloat16 if has_fast_bfloat16(*cpu_facts()) else torch.float32


def has_fast_bfloat16(vendor: str, flags: frozenset[str]) -> bool:
    """Whether a CPU multiplies bfloat16 faster than float32.

    With AMX it does. AVX-512's dot product alone does on AMD (1.8 times, measured on an EPYC); on Intel it has half
    the issue rate of a float32 multiply-add: 186 GFLOP/s against 349 in a convolution (measured on a Xeon, model 207).
    """
    return "amx_bf16" in flags or ("avx512_bf16" in flags and vendor == "AuthenticAMD")


def cpu_facts(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, frozenset[str]]:
    """Vendor and feature flags of the CPU, as Linux tells them; empty elsewhere."""
    facts = {"vendor_id": "", "flags": ""}
    with contextlib.suppress(OSError):
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            facts[name.strip()] = value.strip()
    return facts["vendor_id"], frozenset(facts["flags"].split())


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's marketing name."""
    with contextlib.suppress(OSError):
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def default_recipe() -> str:
    """The recipe of `make train`: `fast90` where there is a GPU, else `cpu90`."""
    return "fast90" if torch.cuda.is_available() else "cpu90"
