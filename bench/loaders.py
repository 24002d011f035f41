"""`python -m bench loaders`: images a second of our loaders and of the usual ones, turn by turn on the same data."""

import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from bench.isolated_runner import cores, race
from bench.measure import check_out, check_runs, described, figure, finish, ratios, result_path, summary, table
from bench.peers import Setting, build_feed
from fastcifar.config import Config
from fastcifar.data.prepared import load_manifest
from fastcifar.errors import UserError
from fastcifar.runtime.device import Runtime, select_runtime
from fastcifar.runtime.threads import apply_threads

OURS = "resident"
TURN_S = 0.5
"""Seconds that a turn lasts at least: an epoch of ours takes 40 ms, of which the caches' warming up would be a part."""
CLOCK = (
    "perf_counter around one epoch: from asking for its first batch until its last one is there and a pixel of every "
    "image was added up (on a GPU: and the device is idle); the mean of as many epochs as fill half a second"
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Time epochs of loaders, each in a process of its own, in interleaved rounds."""

    data: Path = Path("data")
    """Prepared data."""
    out: Path | None = None
    """The result file; by default one in bench/results/ that says what it holds."""
    runs: int = 7
    """Timed epochs of each loader, after one that warms it up."""
    batch_size: int = 500
    """Images a batch."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the batches are wanted."""
    threads: int | None = None
    """CPU threads of compiled loaders; None leaves torch's choice."""
    slow_images: int = 10_000
    """Images in an epoch of torchvision's loaders; of the NumPy reference a fifth of it."""
    only: tuple[str, ...] = ()
    """Names of the loaders to time; all by default."""
    quick: bool = False
    """Few images and one repetition: shows that it works, measures nothing."""


class Timed:
    """One loader, whose turn is an epoch."""

    def __init__(self, kind: str, setting: Setting) -> None:
        self.runtime = Runtime(torch.device(setting.device), setting.dtype, setting.threads)
        self.epochs = 0
        with apply_threads(self.runtime):
            self.feed = build_feed(kind, setting)

    def turn(self) -> dict[str, float]:
        """Seconds of an epoch, the mean of as many as fill TURN_S, and until the first batch of the first."""
        taken = [self._epoch()]
        while sum(epoch["epoch_s"] for epoch in taken) < TURN_S:
            taken.append(self._epoch())
        return taken[0] | {"epoch_s": sum(epoch["epoch_s"] for epoch in taken) / len(taken)}

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
            raise RuntimeError(f"{seen} images came, {self.feed.num_images} were due")
        return {"epoch_s": epoch_s, "first_batch_s": first, "checksum": checksum}

    def facts(self) -> dict[str, Any]:
        """What was delivered."""
        peak = torch.cuda.max_memory_allocated() / 2**20 if self.runtime.device.type == "cuda" else None
        return {"images": self.feed.num_images, "gpu_memory_mib": peak}


def consume(images: Tensor, labels: Tensor) -> Tensor:
    """A number that needs a pixel of every image and every label, so that no batch can be left unmade."""
    return images[:, 1, 16, 16].float().sum() + labels.sum()


def line_up(options: Options, runtime: Runtime) -> dict[str, functools.partial]:
    """The contestants by name; a DataLoader with 0 processes and then 1, 2, 4, ... up to the number of cores."""
    common: dict[str, Any] = {"data": options.data, "device": runtime.device.type, "threads": runtime.threads}
    common["batch_size"] = options.batch_size
    slow, full = options.slow_images, None
    if options.quick:
        slow = full = options.batch_size * 2
    builders: dict[str, functools.partial] = {}

    def enter(name: str, kind: str, **fields: Any) -> None:
        if not options.only or name in options.only:
            builders[name] = functools.partial(Timed, kind, Setting(**common, **{"num_images": full, **fields}))

    for kind in ("resident", "stream"):
        enter(kind, kind)
        enter(f"{kind}-bfloat16", kind, dtype=torch.bfloat16)
    for kind in ("ffcv", "ffcv-lookup"):
        enter(kind, kind)
    for kind in ("torchvision-v2", "torchvision-pil"):
        for workers in worker_counts(cores()):
            enter(f"{kind}-{workers}", kind, workers=workers, num_images=slow)
    enter("numpy", "numpy", num_images=slow if options.quick else max(options.batch_size, slow // 5))
    unknown = set(options.only) - set(builders)
    if unknown:
        raise UserError(f"no loader is called {', '.join(sorted(unknown))}: choose from {', '.join(builders)}")
    return builders


def subject(options: Options, dataset: str) -> str:
    """What the file's name says was measured: the data set, and the batch size where it is not the usual one."""
    return dataset if options.batch_size == Options.batch_size else f"{dataset}-b{options.batch_size}"


def worker_counts(limit: int) -> list[int]:
    """0, 1, 2, 4, ... and `limit` itself."""
    return sorted({0, limit, *(2**i for i in range(limit.bit_length()) if 2**i <= limit)})


def main(arguments: list[str]) -> None:
    """Measures, prints a table, writes the JSON; the last line is the JSON."""
    from fastcifar.cli.parsing import parse

    options = parse(Options, arguments, prog="python -m bench loaders")
    check_runs(options.runs)
    manifest = load_manifest(options.data)
    if not 1 <= options.batch_size <= manifest.splits["train"].samples:
        raise UserError(f"batch_size is {options.batch_size}, but must be 1 to {manifest.splits['train'].samples}")
    runtime = select_runtime(Config(device=options.device, threads=options.threads, amp="float32", cpu_kernels="torch"))
    check_out(options.out)
    runs = 1 if options.quick else options.runs
    raced = race(line_up(options, runtime), runs, "loaders")
    result = {
        "what": "loaders",
        "dataset": manifest.dataset,
        **described(runtime),
        "n": runs,
        "batch_size": options.batch_size,
        "output": "(batch, 3, 32, 32) float32, or bfloat16 where the name says so",
        "clock": CLOCK,
        "contestants": compare(raced),
    }
    finish(result, printed(result), options.out or result_path(result, subject(options, manifest.dataset)))


def compare(raced: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Figures of each contestant, and how many times as fast as ours and as the fastest of torchvision's it is."""
    rates = {name: [one["images"] / turn["epoch_s"] for turn in one["turns"]] for name, one in raced.items()}
    peers = [name for name in rates if name.startswith("torchvision")]
    fastest = max(peers, key=lambda name: summary(rates[name])["median"], default=None)
    table: dict[str, dict[str, Any]] = {}
    for name, one in raced.items():
        table[name] = {
            "images": one["images"],
            "images_per_s": summary(rates[name]),
            "epoch_s": summary([turn["epoch_s"] for turn in one["turns"]]),
            "first_batch_s": summary([turn["first_batch_s"] for turn in one["turns"]]),
            "build_s": one["build_s"],
            "warm_up_first_batch_s": one["warm_up"]["first_batch_s"],
            "memory_mib": one["memory_mib"],
            "workers_mib": one["workers_mib"],
            "gpu_memory_mib": one["gpu_memory_mib"],
            "times_ours": ratios(rates[name], rates[OURS]) if OURS in rates else None,
            "times_torchvision": ratios(rates[name], rates[fastest]) if fastest else None,
            "torchvision": fastest,
        }
    return table


def printed(result: dict[str, Any]) -> str:
    """The table of the terminal."""
    header = ("loader", "images", "images/s", "min", "max", "build s", "first s", "MiB", "x ours", "x torchvision")
    rows = []
    for name, one in result["contestants"].items():
        rate = one["images_per_s"]
        rows.append(
            (
                name,
                f"{one['images']:,}",
                *(figure(rate[key]) for key in ("median", "min", "max")),
                figure(one["build_s"]),
                figure(one["warm_up_first_batch_s"]),
                figure(one["memory_mib"] + one["workers_mib"]),
                *(figure(one[k]["median"]) if one[k] else "-" for k in ("times_ours", "times_torchvision")),
            )
        )
    return table(header, rows)


if __name__ == "__main__":
    from fastcifar.cli.console import run_command

    run_command(main)
