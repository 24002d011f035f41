"""`python -m bench loaders`: images per second of our loaders and of others, on the same data."""

import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from bench.isolated_runner import cores, run_isolated
from bench.measure import Table, check_out, check_runs, described, figure, finish, ranged, ratios, result_path, summary
from bench.peers import Setting, build_feed
from fastcifar.config import Config
from fastcifar.data.prepared import load_manifest
from fastcifar.errors import UserError
from fastcifar.runtime.device import Runtime, select_runtime
from fastcifar.runtime.threads import apply_threads

OURS = "resident"
MIN_REPETITION_S = 0.5
"""Shortest repetition: an epoch of our loaders takes 40 ms, too short to time alone."""
CLOCK = (
    "perf_counter around one epoch: from requesting its first batch until a pixel of every image has been summed (on a "
    "GPU, until the device is idle); the mean over as many epochs as fill half a second"
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Time epochs of loaders, each in its own process, in interleaved rounds."""

    data: Path = Path("data")
    """Folder of the prepared data."""
    out: Path | None = None
    """Result file, or an existing folder for it. Default: a file in bench/results/ named after the benchmark."""
    runs: int = 7
    """Timed repetitions of each loader, after one warm-up."""
    batch_size: int = 500
    """Images per batch."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device that receives the batches."""
    threads: int | None = None
    """CPU threads of compiled loaders. Default: PyTorch's choice."""
    slow_images: int = 10_000
    """Images per epoch of torchvision's loaders; the NumPy reference has a fifth of it."""
    only: tuple[str, ...] = ()
    """Names of the loaders to time. Default: all."""
    quick: bool = False
    """Few images and one repetition, to check that the benchmark works."""


class TimedLoader:
    """A loader as a candidate; a repetition is an epoch, or several short ones."""

    def __init__(self, kind: str, setting: Setting) -> None:
        self.runtime = Runtime(torch.device(setting.device), setting.dtype, setting.threads)
        self.epochs = 0
        with apply_threads(self.runtime):
            self.feed = build_feed(kind, setting)

    def measure(self) -> dict[str, float]:
        """Mean seconds per epoch, and seconds until the first batch of the first epoch."""
        epochs = [self._epoch()]
        while sum(epoch["epoch_s"] for epoch in epochs) < MIN_REPETITION_S:
            epochs.append(self._epoch())
        return epochs[0] | {"epoch_s": sum(epoch["epoch_s"] for epoch in epochs) / len(epochs)}

    def _epoch(self) -> dict[str, float]:
        with apply_threads(self.runtime):
            self.runtime.synchronise()
            start, first, seen = time.perf_counter(), 0.0, 0
            total = torch.zeros((), device=self.runtime.device)
            for images, labels in self.feed.epoch(self.epochs):
                total += consume(images, labels)
                if not seen:
                    self.runtime.synchronise()
                    first = time.perf_counter() - start
                seen += len(labels)
            checksum = total.item()
            self.runtime.synchronise()
            epoch_s = time.perf_counter() - start
        self.epochs += 1
        if seen != self.feed.num_images:
            raise RuntimeError(f"the loader delivered {seen} images, expected {self.feed.num_images}")
        return {"epoch_s": epoch_s, "first_batch_s": first, "checksum": checksum}

    def facts(self) -> dict[str, Any]:
        """Images per epoch, and peak GPU memory."""
        peak = torch.cuda.max_memory_allocated() / 2**20 if self.runtime.device.type == "cuda" else None
        return {"images": self.feed.num_images, "gpu_memory_mib": peak}


def consume(images: Tensor, labels: Tensor) -> Tensor:
    """A number that depends on a pixel of every image and on every label, so that no batch can be skipped."""
    return images[:, 1, 16, 16].float().sum() + labels.sum()


def candidates(options: Options, runtime: Runtime) -> dict[str, functools.partial]:
    """Builders of the loaders by name; torchvision's have 0, 1, 2, 4, ... workers up to the number of cores."""
    common: dict[str, Any] = {"data": options.data, "device": runtime.device.type, "threads": runtime.threads}
    common["batch_size"] = options.batch_size
    slow, full = options.slow_images, None
    if options.quick:
        slow = full = options.batch_size * 2
    builders: dict[str, functools.partial] = {}

    def add(name: str, kind: str, **fields: Any) -> None:
        if not options.only or name in options.only:
            builders[name] = functools.partial(TimedLoader, kind, Setting(**common, **{"num_images": full, **fields}))

    for kind in ("resident", "stream"):
        add(kind, kind)
        add(f"{kind}-bfloat16", kind, dtype=torch.bfloat16)
    for kind in ("ffcv", "ffcv-lookup"):
        add(kind, kind)
    for kind in ("torchvision-v2", "torchvision-pil"):
        for workers in worker_counts(cores()):
            add(f"{kind}-{workers}", kind, workers=workers, num_images=slow)
    add("numpy", "numpy", num_images=slow if options.quick else max(options.batch_size, slow // 5))
    unknown = set(options.only) - set(builders)
    if unknown:
        raise UserError(f"unknown loader {', '.join(sorted(unknown))}; choose from {', '.join(builders)}")
    return builders


def worker_counts(limit: int) -> list[int]:
    """0, 1, 2, 4, ... and `limit` itself."""
    return sorted({0, limit, *(2**i for i in range(limit.bit_length()) if 2**i <= limit)})


def main(arguments: list[str]) -> None:
    """Measures, prints a table, writes the JSON and prints it as the last line."""
    from fastcifar.cli.parsing import parse

    options = parse(Options, arguments, prog="python -m bench loaders")
    check_runs(options.runs)
    manifest = load_manifest(options.data)
    if not 1 <= options.batch_size <= manifest.splits["train"].samples:
        raise UserError(f"batch_size is {options.batch_size}, but must be 1 to {manifest.splits['train'].samples}")
    runtime = select_runtime(Config(device=options.device, threads=options.threads, amp="float32", cpu_kernels="torch"))
    check_out(options.out)
    runs = 1 if options.quick else options.runs
    measured = run_isolated(candidates(options, runtime), runs, "loaders")
    result = {
        "what": "loaders",
        "dataset": manifest.dataset,
        **described(runtime),
        "n": runs,
        "batch_size": options.batch_size,
        "output": "(batch, 3, 32, 32) float32, or bfloat16 where the name says so",
        "clock": CLOCK,
        "candidates": compare(measured),
    }
    subject = manifest.dataset
    if options.batch_size != Options.batch_size:
        subject += f"-b{options.batch_size}"
    finish(result, table_of(result), result_path(result, subject, options.out))


def compare(measured: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The figures of each candidate, with its speed relative to `resident` and to the fastest of torchvision's."""
    rates = {name: [one["images"] / rep["epoch_s"] for rep in one["repetitions"]] for name, one in measured.items()}
    peers = [name for name in rates if name.startswith("torchvision")]
    fastest = max(peers, key=lambda name: summary(rates[name])["median"], default=None)
    compared: dict[str, dict[str, Any]] = {}
    for name, one in measured.items():
        compared[name] = {
            "images": one["images"],
            "images_per_s": summary(rates[name]),
            "epoch_s": summary([rep["epoch_s"] for rep in one["repetitions"]]),
            "first_batch_s": summary([rep["first_batch_s"] for rep in one["repetitions"]]),
            "build_s": one["build_s"],
            "warm_up_first_batch_s": one["warm_up"]["first_batch_s"],
            "memory_mib": one["memory_mib"],
            "workers_mib": one["workers_mib"],
            "gpu_memory_mib": one["gpu_memory_mib"],
            "speedup_over_resident": ratios(rates[name], rates[OURS]) if OURS in rates else None,
            "speedup_over_torchvision": ratios(rates[name], rates[fastest]) if fastest else None,
            "fastest_torchvision": fastest,
        }
    return compared


def table_of(result: dict[str, Any]) -> Table:
    """A row for each loader."""
    header = (
        "loader", "images", "images/s", "epoch s", "build s", "first batch s", "memory MiB", "x resident",
        "x torchvision",
    )  # fmt: skip
    rows = []
    for name, one in result["candidates"].items():
        timed = [ranged(one[key]) for key in ("images_per_s", "epoch_s")]
        once = [figure(one["build_s"]), figure(one["warm_up_first_batch_s"])]
        memory = figure(one["memory_mib"] + one["workers_mib"])
        speedups = [one["speedup_over_resident"], one["speedup_over_torchvision"]]
        rows.append([name, f"{one['images']:,}", *timed, *once, memory, *(ranged(x) if x else "-" for x in speedups)])
    return header, rows
