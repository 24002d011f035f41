"""Which loader a training takes when it is not told: the set in memory where it fits well, else FFCV's reader."""

import contextlib
import math
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from fastcifar.data.prepared import load_manifest

BYTES_PER_SAMPLE = 32 * 32 * 3 + 8
FRACTION = 0.5
"""Of the free memory that images may take; the rest is for the network."""


Kind = Literal["resident", "stream"]


class Choice(NamedTuple):
    """A loader's kind, and why it is this one; empty where there was nothing to decide."""

    kind: Kind
    reason: str


def choose_loader(kind: Literal["auto", "resident", "stream"], folder: Path, device: torch.device) -> Choice:
    """Resolves `kind` for the data in `folder`: "auto" looks at the free memory of `device`, others stay as they are.

    Raises UserError if there is no prepared data.
    """
    if kind != "auto":
        return Choice(kind, "")
    needed = BYTES_PER_SAMPLE * sum(info.samples for info in load_manifest(folder).splits.values())
    free = free_bytes(device)
    fits = needed <= FRACTION * free
    verdict = f"the data set of {needed / 1e6:.0f} MB {'fits' if fits else 'does not fit'}"
    return Choice("resident" if fits else "stream", f"{verdict} in half of the {free / 1e6:.0f} MB that are free")


def free_bytes(
    device: torch.device, meminfo: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")
) -> float:
    """Free bytes of the GPU, or of the host within its container's limit; infinite where nobody says."""
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
