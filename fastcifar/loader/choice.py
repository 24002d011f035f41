"""Which loader `auto` means: resident where the data set fits in half of the free memory, else stream."""

import contextlib
import math
from pathlib import Path
from typing import Literal

import torch

from fastcifar.data.cifar10 import IMAGE_BYTES
from fastcifar.data.prepared import load_manifest
from fastcifar.loader.options import LoaderKind

SAMPLE_BYTES = IMAGE_BYTES + 8  # with its int64 label
MEMORY_FRACTION = 0.5
"""Fraction of the free memory that the data set may take; the rest is for the network."""


def choose_loader(
    kind: Literal["auto", "resident", "stream"], folder: Path, device: torch.device
) -> tuple[LoaderKind, str]:
    """Resolves "auto" for the data in `folder` by the free memory of `device`; returns other kinds unchanged.

    Also returns the reason, which is empty unless `kind` is "auto". Raises UserError if there is no prepared data.
    """
    if kind != "auto":
        return kind, ""
    needed = SAMPLE_BYTES * sum(info.samples for info in load_manifest(folder).splits.values())
    free = free_bytes(device)
    fits = needed <= MEMORY_FRACTION * free
    verdict = f"the data set of {needed / 1e6:.0f} MB {'fits' if fits else 'does not fit'}"
    return "resident" if fits else "stream", f"{verdict} in half of the {free / 1e6:.0f} MB that are free"


def free_bytes(
    device: torch.device, meminfo: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")
) -> float:
    """Free bytes of the GPU, or of the host within its container's limit; infinite where neither is known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = math.inf
    with contextlib.suppress(OSError, ValueError):
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = 1024 * int(line.split()[1])
    with contextlib.suppress(OSError, ValueError):  # ValueError: "max", no limit
        free = min(free, int((group / "memory.max").read_text()))
    return free
