"""`python -m bench kernels`: the fused kernel against the bandwidth of a plain copy of as many bytes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from bench import measure as m
from bench.peers import AUGMENT
from fastcifar.augment.transform import Transform
from fastcifar.config import Config
from fastcifar.data.cifar10 import IMAGE_BYTES, IMAGE_SIZE
from fastcifar.data.prepared import load_manifest, read_split
from fastcifar.errors import UserError
from fastcifar.runtime.device import DTYPES, Runtime, select_runtime
from fastcifar.runtime.threads import apply_threads, keep_freed_memory

INDEX_BYTES = 16  # a row and a sample number
COPY_POOL = 2**29  # bytes that a copy goes through, several times any cache
GB = 1e9
OUTPUTS = {
    "fresh": "allocated by each call; glibc gives large blocks back to the system, so their pages are zeroed anew",
    "kept": "allocated by each call in a process that keeps freed memory, as the training commands do",
    "reused": "one buffer for all calls (a GPU's kernel only)",
}
CLOCK = (
    "perf_counter around enough calls to make at least as many images as `images_a_turn`; the kernel's include "
    "the allocation of the output and Python's part of the call"
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Time the fused kernel and copies of the same volume, turn by turn."""

    data: Path = Path("data")
    """Prepared data."""
    out: Path | None = None
    """The result file; by default one in bench/results/ that says what it holds."""
    runs: int = 7
    """Timed turns of each case, after one that warms it up."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Which kernel."""
    batch_sizes: tuple[int, ...] = (64, 500, 2500, 10_000, 50_000)
    """Images a call."""
    dtypes: tuple[Literal["float32", "bfloat16", "float16"], ...] = ("float32", "bfloat16", "float16")
    """Types of the output."""
    threads: int | None = None
    """The larger number of CPU threads; the smaller one is 1. None leaves torch's choice."""
    images_a_turn: int = 10_000
    """Images that a turn makes at least."""
    quick: bool = False
    """One batch size and one repetition: shows that it works, measures nothing."""


@dataclass(frozen=True)
class Case:
    """One kernel call's shape."""

    batch: int
    dtype: str
    threads: int
    output: str  # one of OUTPUTS

    @property
    def name(self) -> str:
        """For people and as a key."""
        return f"batch {self.batch}, {self.dtype}, {self.threads} threads, {self.output}"

    @property
    def traffic(self) -> int:
        """Bytes a call has to read and to write."""
        return self.batch * (IMAGE_BYTES + INDEX_BYTES + IMAGE_BYTES * DTYPES[self.dtype].itemsize)


class Bench:
    """Images, their order, and the two things that are timed: the kernel and a copy."""

    def __init__(self, options: Options, runtime: Runtime) -> None:
        manifest = load_manifest(options.data)
        self.runtime, self.images_a_turn = runtime, options.images_a_turn
        self.images, _ = read_split(options.data, "train")
        # shuffled and long enough for the largest batch, whatever the size of the set
        order = np.random.default_rng(0).permutation(len(self.images))
        self.order = np.resize(order, max(len(order), *options.batch_sizes)).astype(np.int64)
        self.transforms: dict[str, Any] = {
            name: _transform_on(runtime, Transform(AUGMENT, manifest.mean_01, manifest.std_01, dtype=DTYPES[name]))
            for name in options.dtypes
        }
        self.source: Any = self.images
        if runtime.device.type == "cuda":
            self.source = torch.from_numpy(self.images).to(runtime.device)
        pool = COPY_POOL if not options.quick else 2**24
        self.pool = torch.ones((2, pool // 8), dtype=torch.int64, device=runtime.device)

    def kernel(self, case: Case) -> Callable[[], float]:
        """Seconds a call of the kernel, over a turn."""
        transform, calls = self.transforms[case.dtype], self._calls(case)
        batches = [self._rows(i * case.batch, case.batch) for i in range(calls)]
        if case.output == "reused":
            out = torch.empty(
                (case.batch, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=transform.dtype, device=self.runtime.device
            )
            state = torch.zeros(2, dtype=torch.int64, device=self.runtime.device)

            def work() -> None:
                for rows in batches:
                    transform.into(out, self.source, rows, rows, state)

            return lambda: self._seconds(work, case) / calls

        def work() -> None:
            for rows in batches:
                transform(self.source, rows, rows, 0)

        return lambda: self._seconds(work, case) / calls

    def copy(self, case: Case) -> Callable[[], float]:
        """Seconds a copy that reads half of the case's bytes and writes the other half, through cold memory."""
        words = max(1, case.traffic // 16)
        source, target = self.pool
        calls, starts = self._calls(case), max(1, len(source) // words)
        whole = -(-words // len(source))  # a volume larger than the pool is copied in parts

        def work() -> None:
            for call in range(calls):
                begin = call % starts * words
                for part in range(whole):
                    size = min(words - part * len(source), len(source))
                    target[begin : begin + size].copy_(source[begin : begin + size])

        return lambda: self._seconds(work, case) / calls

    def _rows(self, begin: int, count: int) -> Any:
        begin %= max(1, len(self.order) - count + 1)
        rows = self.order[begin : begin + count]
        return rows if self.runtime.device.type == "cpu" else torch.from_numpy(rows).to(self.runtime.device)

    def _calls(self, case: Case) -> int:
        return max(1, -(-self.images_a_turn // case.batch))

    def _seconds(self, work: Callable[[], None], case: Case) -> float:
        with apply_threads(replace(self.runtime, threads=case.threads)):
            return m.seconds(work, self.runtime.synchronise)


def _transform_on(runtime: Runtime, transform: Transform) -> Any:
    """What runs on the device: called with (images, rows, samples, epoch), it returns a fresh tensor."""
    if runtime.device.type == "cpu":
        return transform
    try:
        from fastcifar.augment.transform_cuda import CudaTransform
    except ImportError as error:
        raise UserError(f"the kernel for GPUs cannot be imported ({error}); use --device cpu") from None
    return CudaTransform(transform, runtime.device)


def cases(options: Options, runtime: Runtime, output: str) -> list[Case]:
    """All shapes; on a GPU there are no threads to choose."""
    threads = sorted({1, runtime.threads}) if runtime.device.type == "cpu" else [runtime.threads]
    return [
        Case(batch, dtype, count, output)
        for batch in options.batch_sizes
        for dtype in options.dtypes
        for count in threads
    ]


def main(arguments: list[str]) -> None:
    """Measures, prints a table, writes the JSON; the last line is the JSON."""
    from fastcifar.cli.parsing import parse

    options = parse(Options, arguments, prog="python -m bench kernels")
    m.check_runs(options.runs)
    if min(options.batch_sizes) < 1:
        raise UserError(f"batch_sizes are {options.batch_sizes}, but must be at least 1")
    if options.quick:
        options = replace(options, runs=1, batch_sizes=options.batch_sizes[:1], images_a_turn=options.batch_sizes[0])
    runtime = select_runtime(Config(device=options.device, threads=options.threads, cpu_kernels="torch"))
    m.check_out(options.out)
    manifest = load_manifest(options.data)
    bench = Bench(options, runtime)
    found: list[dict[str, Any]] = []
    for output in ("fresh", "kept") if runtime.device.type == "cpu" else ("kept", "reused"):  # torch keeps GPU memory
        if output == "kept":
            keep_freed_memory()  # for good, so it comes last
        found += roofline(bench, cases(options, runtime, output), options.runs)
    result = {
        "what": "kernels",
        "dataset": manifest.dataset,
        **m.described(runtime),
        "n": options.runs,
        "images": len(bench.images),
        "images_a_turn": options.images_a_turn,
        "traffic": f"{IMAGE_BYTES} bytes read, {INDEX_BYTES} of indices, 3072 values written, per image",
        "clock": CLOCK,
        "outputs": OUTPUTS,
        "cases": found,
    }
    m.finish(result, printed(result), options.out or m.result_path(result, manifest.dataset))


def roofline(bench: Bench, shapes: list[Case], runs: int) -> list[dict[str, Any]]:
    """Each case beside its copy, in interleaved rounds."""
    turns: dict[str, Callable[[], float]] = {}
    for case in shapes:
        turns[f"{case.name}: kernel"], turns[f"{case.name}: copy"] = bench.kernel(case), bench.copy(case)
    for turn in turns.values():
        turn()  # compiles, and touches the memory
    taken = m.interleave(turns, runs, f"kernels, output {shapes[0].output}")
    rows = []
    for case in shapes:
        kernel, copy = taken[f"{case.name}: kernel"], taken[f"{case.name}: copy"]
        rows.append(
            {
                "batch": case.batch,
                "dtype": case.dtype,
                "threads": case.threads,
                "output": case.output,
                "bytes_per_image": case.traffic // case.batch,
                "call_s": m.summary(kernel),
                "images_per_s": m.summary([case.batch / s for s in kernel]),
                "gb_per_s": m.summary([case.traffic / s / GB for s in kernel]),
                "copy_gb_per_s": m.summary([case.traffic / s / GB for s in copy]),
                "fraction_of_copy": m.ratios(copy, kernel),
            }
        )
    return rows


def printed(result: dict[str, Any]) -> str:
    """The table of the terminal."""
    header = ("output", "batch", "dtype", "threads", "images/s", "GB/s", "copy GB/s", "fraction of copy", "min", "max")
    rows = [
        (
            one["output"], one["batch"], one["dtype"], one["threads"],
            *(m.figure(one[key]["median"]) for key in ("images_per_s", "gb_per_s", "copy_gb_per_s")),
            *(f"{one['fraction_of_copy'][key]:.1%}" for key in ("median", "min", "max")),
        )
        for one in result["cases"]
    ]  # fmt: skip
    return m.table(header, rows)


if __name__ == "__main__":
    from fastcifar.cli.console import run_command

    run_command(main)
