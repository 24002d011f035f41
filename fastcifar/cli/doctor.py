"""`fastcifar doctor`: what is installed, what will be used and what is missing, for a bug report."""

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

import fastcifar
from fastcifar.cli.parsing import parse
from fastcifar.errors import UserError, reason


@dataclass(frozen=True, kw_only=True)
class Options:
    """Show versions, hardware, the settings that `auto` chooses on this machine, and the prepared data."""

    data: tyro.conf.Positional[Path] = Path("data")
    """Folder of the prepared data."""


def main(arguments: list[str]) -> None:
    """Prints one line `name: value` for each fact."""
    options = parse(Options, arguments, prog="fastcifar doctor")
    for name, value in facts(options.data):
        print(f"{name + ':':14}{value}")


def facts(data: Path) -> list[tuple[str, str]]:
    """The lines of the report as (name, value)."""
    from fastcifar.config import KERNEL_NAMES, Config
    from fastcifar.runs.record import PACKAGES, code_revision, package_version
    from fastcifar.runtime.device import cpu_name, default_recipe, select_runtime

    runtime = select_runtime(Config())
    return [
        ("fastcifar", f"{fastcifar.__version__}, revision {code_revision() or 'unknown'}"),
        ("python", f"{platform.python_version()} in {sys.prefix}"),
        ("system", platform.platform()),
        *((name, package_version(name) or "not installed") for name in PACKAGES),
        ("cpu", f"{cpu_name()}, {os.cpu_count()} cores"),
        *(("gpu", gpu) for gpu in gpu_lines()),
        ("device", str(runtime.device)),
        ("amp", str(runtime.dtype).removeprefix("torch.")),
        ("cpu layers", KERNEL_NAMES[runtime.cpu_kernels]),
        ("threads", str(runtime.threads)),
        ("recipe", f"{default_recipe()} by default"),
        ("ffcv import", _ffcv()),
        ("cpu kernel", _cpu_kernel()),
        ("self-check", _gpu_check()),
        ("data", _data(data)),
    ]


def gpu_lines() -> list[str]:
    """A line for each GPU that torch sees, whether or not it supports it."""
    import torch

    from fastcifar.runtime.device import gpu_name

    if torch.backends.mps.is_available():
        return ["mps"]
    lines = []
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device = torch.device("cuda", i)
        capability = "{}.{}".format(*torch.cuda.get_device_capability(device))
        try:
            free, total = (size / 2**30 for size in torch.cuda.mem_get_info(device))
            memory = f"{free:.1f} of {total:.1f} GiB free"
        except RuntimeError as error:  # such as a GPU that another process has to itself
            memory = f"memory unknown: {reason(error)}"
        lines.append(f"{gpu_name(device)}, compute capability {capability}, {memory}")
    return lines or ["none found by torch"]


def _ffcv() -> str:
    from fastcifar.loader.ffcv_guard import check_ffcv

    try:
        check_ffcv()
    except UserError as error:
        return str(error)
    return "works"


def _cpu_kernel() -> str:
    import numpy as np

    from fastcifar.augment import reference
    from fastcifar.augment.transform import Transform
    from fastcifar.config import AugmentConfig

    image = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(1, 32, 32, 3)
    transform = Transform(AugmentConfig(), (0.5,) * 3, (0.25,) * 3)
    ours = transform(image, np.zeros(1, np.int64), np.zeros(1, np.int64), 0).permute(0, 2, 3, 1).numpy()
    bits = reference.augment_one(image[0], transform, epoch=0, sample_id=0)
    equal = np.array_equal(ours[0].view(np.uint32), bits)
    return "equal to the NumPy reference" if equal else "DIFFERS from the NumPy reference"


def _gpu_check() -> str:
    from fastcifar.errors import RunFailedError
    from fastcifar.recipes import load_config
    from fastcifar.runtime.device import select_runtime
    from fastcifar.training.self_check import self_check

    config = load_config()
    if not select_runtime(config).is_gpu:
        return "nothing to check without a GPU"
    try:
        findings, paths = self_check(config)
    except (RunFailedError, RuntimeError) as error:
        return f"FAILED: {reason(error)}"
    return (
        f"FAILED: {'; '.join(findings)}" if findings else f"images by {paths['augmentation']}, steps by {paths['step']}"
    )


def _data(folder: Path) -> str:
    from fastcifar.data.prepared import load_manifest

    try:
        manifest = load_manifest(folder)
    except UserError as error:
        return f"none: {error}"
    counts = " + ".join(f"{info.samples} {split}" for split, info in manifest.splits.items())
    return f"{manifest.dataset} in {folder}, {counts} images, content SHA-256 {manifest.content_sha256[:12]}"
