"""`python -m bench environment`: the device, the driver, clocks, power and versions that results depend on."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.measure import described, device_name, text_table
from bench.training import Device
from fastcifar.cli.parsing import parse
from fastcifar.config import Config
from fastcifar.runs.record import package_version
from fastcifar.runtime.device import Runtime, select_runtime

PACKAGES = ("triton", "numba-cuda", "cuda-core", "cuda-bindings", "nvidia-cuda-nvcc", "pytest", "safetensors", "tyro")
SMI_FIELDS = (
    "name", "driver_version", "power.limit", "power.draw", "clocks.sm", "clocks.max.sm", "clocks.mem", "clocks.max.mem",
    "memory.total", "memory.used", "temperature.gpu", "persistence_mode", "compute_mode", "pcie.link.gen.current",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options:
    """Print the facts about this machine that results depend on."""

    device: Device = "auto"
    """Device to describe."""


def main(arguments: list[str]) -> None:
    """Prints a table, and JSON as the last line."""
    runtime = select_runtime(Config(device=parse(Options, arguments, prog="python -m bench environment").device))
    facts = {"what": "environment", **described(runtime), **software(), **gpu_facts(runtime)}
    facts["device_name"] = device_name(facts)
    flat = [(f"{key} {name}", one) for key in ("versions", "hardware", "gpu", "nvidia_smi") if key in facts
            for name, one in facts[key].items()]  # fmt: skip
    print(text_table(("fact", "value"), [*flat, *((key, facts[key]) for key in ("device_name", "nvcc", "system"))]))
    print(json.dumps(facts))


def software() -> dict[str, Any]:
    """Versions of torch's libraries and of packages that kernels are compiled with, and the path of nvcc."""
    nvcc = shutil.which("nvcc") or next((str(path) for path in sorted(Path("/usr/local").glob("cuda*/bin/nvcc"))), None)
    return {
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None,
        "packages": {name: package_version(name) for name in PACKAGES},
        "nvcc": nvcc,
    }


def gpu_facts(runtime: Runtime) -> dict[str, Any]:
    """What torch and nvidia-smi say about the GPU; nothing on a CPU."""
    if runtime.device.type != "cuda":
        return {}
    properties = torch.cuda.get_device_properties(runtime.device)
    free, total = torch.cuda.mem_get_info(runtime.device)
    facts = {
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "free_mib": free >> 20,
        "total_mib": total >> 20,
    }
    return {"gpu": facts, "nvidia_smi": nvidia_smi()}


def nvidia_smi() -> dict[str, str]:
    """Driver, clocks, power and memory of the current GPU; empty if nvidia-smi does not tell."""
    command = ["nvidia-smi", f"--query-gpu={','.join(SMI_FIELDS)}", "--format=csv,noheader"]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
        values = printed.splitlines()[torch.cuda.current_device()].split(", ")
        return dict(zip(SMI_FIELDS, values, strict=True))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return {}
