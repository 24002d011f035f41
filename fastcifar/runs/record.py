"""The run folder, and the record of everything that made the result."""

import contextlib
import hashlib
import json
import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

import fastcifar
from fastcifar.config import Config
from fastcifar.errors import UserError
from fastcifar.files import atomic_path, read_at_most
from fastcifar.runtime.device import Runtime, cpu_name

MAX_RECORD_BYTES = 16 << 20  # a record has about 4 kB
RECORD_NAME, CONFIG_NAME = "record.json", "config.toml"
METRICS_NAME, WEIGHTS_NAME = "metrics.jsonl", "weights.safetensors"
PACKAGES = ("torch", "torchvision", "numpy", "numba", "numba-cuda", "ffcv")


def make_run_folder(config: Config) -> Path:
    """Makes the folder `<runs>/<time>-<recipe>-<seed>`, with a number appended if that exists; raises UserError."""
    stem, number = f"{time.strftime('%Y%m%d-%H%M%S')}-{config.recipe}-{config.seed}", 1
    try:
        config.runs.mkdir(parents=True, exist_ok=True)
        while True:
            folder = config.runs / (stem if number == 1 else f"{stem}-{number}")
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder
            number += 1
    except OSError as error:
        raise UserError(f"cannot make a run folder in {config.runs}: {error.strerror}; choose another --runs") from None


def load_record(folder: Path) -> dict[str, Any]:
    """The record of a finished run; raises UserError if it is missing or unreadable."""
    path = folder / RECORD_NAME
    try:
        record = json.loads(read_at_most(path, MAX_RECORD_BYTES))
    except FileNotFoundError:
        raise UserError(f"{folder} holds no finished run: {path} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if not isinstance(record, dict):
        raise UserError(f"{path} is not the record of a run")
    return record


def find_run(run: str, runs: Path) -> Path:
    """The folder of `run`: a path, a name in `runs`, or "latest", the last finished run there; UserError if none."""
    if run == "latest":
        finished = sorted(runs.glob(f"*/{RECORD_NAME}"), key=lambda path: path.stat().st_mtime)
        if not finished:
            raise UserError(f"there is no finished run in {runs}; train one with `fastcifar train`")
        return finished[-1].parent
    for folder in (Path(run), runs / run):
        if folder.is_dir():
            return folder
    raise UserError(f"no run is called {run}, neither as a path nor in {runs}")


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file atomically; raises OSError."""
    contiguous: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        copied = tensor.detach().cpu().contiguous()
        storage = copied.untyped_storage().data_ptr()
        contiguous[name] = copied.clone() if storage in storages else copied  # safetensors refuses shared memory
        storages.add(storage)
    with atomic_path(path) as temporary:
        try:
            save_file(contiguous, temporary, metadata)
        except SafetensorError as error:  # how safetensors reports a full disk
            raise OSError(f"cannot write {path}: {error}") from None


def weights_sha256(state: dict[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of a state dict, sorted by name."""
    hasher = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def environment(runtime: Runtime) -> dict[str, Any]:
    """Versions, hardware and code revision, for the record."""
    hardware: dict[str, Any] = {"cpu": cpu_name(), "cores": os.cpu_count(), "threads": runtime.threads}
    if runtime.device.type == "cuda":
        hardware["gpu"] = torch.cuda.get_device_name(runtime.device)
    return {
        "versions": {
            "fastcifar": fastcifar.__version__,
            "python": platform.python_version(),
            **{name: package_version(name) for name in PACKAGES},
        },
        "hardware": hardware,
        "cpu_kernels": runtime.cpu_kernels,
        "system": platform.platform(),
        "code_revision": code_revision(),
    }


def package_version(name: str) -> str | None:
    """The installed version of a distribution, None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def code_revision() -> str | None:
    """The git commit of the source tree, plus "+changes" if files differ from it; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
