"""`python -m bench kernels`: the fused augmentation kernel against a memory copy of the same number of bytes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from bench import measure as m
from bench.peers import AUGMENT
from fastcifar.augment.transform import Transform
from fastcifar.augment.transform_torch import TorchTransform
from fastcifar.config import Config
from fastcifar.data.cifar10 import IMAGE_BYTES, IMAGE_SIZE
from fastcifar.data.prepared import load_manifest, read_split
from fastcifar.errors import UserError
from fastcifar.runtime.device import DTYPES, Runtime, select_runtime
from fastcifar.runtime.threads import apply_threads, keep_freed_memory

INDEX_BYTES = 16  # a row and a sample number
COPY_POOL = 2**29  # bytes that the copy works on, several times the size of any cache
GB = 1e9
MOST_AS_TENSORS = 10_000  # images of a batch: tensor operations keep several integers for a pixel
LARGE = 2000  # images of a batch from which on launches and threads no longer matter
OUTPUTS = {
    "fresh": "allocated by each call; glibc returns large blocks to the system, so the kernel zeroes their pages again",
    "kept": "allocated by each call in a process that keeps freed memory, as the training commands do",
    "reused": "one buffer for all calls (GPU kernel only)",
    "tensors": "made by tensor operations instead of the kernel, allocated by each call",
}
CLOCK = (
    "perf_counter around enough calls to process `images_per_round` images; kernel calls include the allocation of the "
    "output and the Python overhead"
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Time the fused kernel and copies of the same volume, in interleaved rounds."""

    data: Path = Path("data")
    """Folder of the prepared data."""
    out: Path | None = None
    """Result file, or an existing folder for it. Default: a file in bench/results/ named after the benchmark."""
    runs: int = 7
    """Timed repetitions of each case, after one warm-up."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The CPU kernel or the CUDA kernel."""
    batch_sizes: tuple[int, ...] = (64, 500, 2500, 10_000, 50_000)
    """Images per call."""
    dtypes: tuple[Literal["float32", "bfloat16", "float16"], ...] = ("float32", "bfloat16", "float16")
    """Data types of the output."""
    threads: int | None = None
    """CPU threads, measured besides 1 thread. Default: PyTorch's choice."""
    images_per_round: int = 10_000
    """Smallest number of images in a repetition."""
    quick: bool = False
    """One batch size and one repetition, to check that the benchmark works."""


@dataclass(frozen=True)
class Case:
    """The parameters of a measured kernel call."""

    batch: int
    dtype: str
    threads: int
    output: str  # one of OUTPUTS

    @property
    def name(self) -> str:
        """Name in progress lines, and key."""
        return f"batch {self.batch}, {self.dtype}, {self.threads} threads, {self.output}"

    @property
    def traffic(self) -> int:
        """Bytes that a call reads and writes."""
        return self.batch * (IMAGE_BYTES + INDEX_BYTES + IMAGE_BYTES * DTYPES[self.dtype].itemsize)


class Bench:
    """The images, their order, and the two functions that are timed: kernel and copy."""

    def __init__(self, options: Options, runtime: Runtime) -> None:
        manifest = load_manifest(options.data)
        self.runtime, self.images_per_round = runtime, options.images_per_round
        self.images, _ = read_split(options.data, "train")
        # shuffled and long enough for the largest batch, whatever the size of the set
        order = np.random.default_rng(0).permutation(len(self.images))
        self.order = np.resize(order, max(len(order), *options.batch_sizes)).astype(np.int64)
        self.source: Any = self.images
        self.tensor_source = torch.from_numpy(self.images).to(runtime.device)
        if runtime.device.type == "cuda":
            self.source = self.tensor_source
        hosts = {
            name: Transform(AUGMENT, manifest.mean_01, manifest.std_01, dtype=DTYPES[name]) for name in options.dtypes
        }
        self.tensor_transforms = {name: TorchTransform(host, runtime.device) for name, host in hosts.items()}
        self.transforms = {name: _transform_on(runtime, host) for name, host in hosts.items()}
        pool = COPY_POOL if not options.quick else 2**24
        self.pool = torch.ones((2, pool // 8), dtype=torch.int64, device=runtime.device)

    def kernel(self, case: Case) -> Callable[[], float]:
        """A function that returns the mean seconds of a kernel call, over one repetition."""
        calls, is_kernel = self._calls(case), case.output != "tensors"
        transform = (self.transforms if is_kernel else self.tensor_transforms)[case.dtype]
        source = self.source if is_kernel else self.tensor_source
        batches = [self._rows(i * case.batch, case.batch, as_array=source is self.images) for i in range(calls)]
        if case.output == "reused":
            out = torch.empty(
                (case.batch, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=transform.dtype, device=self.runtime.device
            )
            state = transform.new_state()

            def work() -> None:
                for rows in batches:
                    transform.into(out, source, rows, rows, state)

            return lambda: self._seconds(work, case) / calls

        def work() -> None:
            for rows in batches:
                transform(source, rows, rows, 0)

        return lambda: self._seconds(work, case) / calls

    def copy(self, case: Case) -> Callable[[], float]:
        """The same for a copy that reads half of the bytes and writes the other half, in memory that no cache holds."""
        words = max(1, case.traffic // 16)
        source, target = self.pool
        calls, starts = self._calls(case), max(1, len(source) // words)
        parts = -(-words // len(source))  # a volume larger than the pool is copied in parts

        def work() -> None:
            for call in range(calls):
                begin = call % starts * words
                for part in range(parts):
                    size = min(words - part * len(source), len(source))
                    target[begin : begin + size].copy_(source[begin : begin + size])

        return lambda: self._seconds(work, case) / calls

    def _rows(self, begin: int, count: int, *, as_array: bool) -> Any:
        begin %= max(1, len(self.order) - count + 1)
        rows = self.order[begin : begin + count]
        return rows if as_array else torch.from_numpy(rows).to(self.runtime.device)

    def _calls(self, case: Case) -> int:
        return max(1, -(-self.images_per_round // case.batch))

    def _seconds(self, work: Callable[[], None], case: Case) -> float:
        with apply_threads(replace(self.runtime, threads=case.threads)):
            return m.seconds(work, self.runtime.synchronise)


def _transform_on(runtime: Runtime, transform: Transform) -> Any:
    """The transform for the device; a call with (images, rows, samples, epoch) returns a new tensor."""
    if runtime.device.type == "cpu":
        return transform
    try:
        from fastcifar.augment.transform_cuda import CudaTransform
    except ImportError as error:
        raise UserError(f"cannot import the CUDA kernel ({error}); use --device cpu") from None
    return CudaTransform(transform, runtime.device)


def cases(options: Options, runtime: Runtime, output: str) -> list[Case]:
    """All combinations of the options; on a GPU with one number of threads."""
    threads = sorted({1, runtime.threads}) if runtime.device.type == "cpu" else [runtime.threads]
    return [
        Case(batch, dtype, count, output)
        for batch in options.batch_sizes
        if output != "tensors" or batch <= MOST_AS_TENSORS
        for dtype in options.dtypes
        for count in threads
    ]


def main(arguments: list[str]) -> None:
    """Measures, prints a table, writes the JSON and prints it as the last line."""
    from fastcifar.cli.parsing import parse

    options = parse(Options, arguments, prog="python -m bench kernels")
    m.check_runs(options.runs)
    if min(options.batch_sizes) < 1:
        raise UserError(f"batch_sizes are {options.batch_sizes}, but must be at least 1")
    if options.quick:
        options = replace(options, runs=1, batch_sizes=options.batch_sizes[:1], images_per_round=options.batch_sizes[0])
    runtime = select_runtime(Config(device=options.device, threads=options.threads, cpu_kernels="torch"))
    m.check_out(options.out)
    manifest = load_manifest(options.data)
    bench = Bench(options, runtime)
    found: list[dict[str, Any]] = []
    outputs = ("fresh", "kept") if runtime.device.type == "cpu" else ("kept", "reused")  # torch always keeps GPU memory
    for output in (*outputs, "tensors"):
        if output == "kept":
            keep_freed_memory()  # cannot be undone, so "fresh" comes first
        if shapes := cases(options, runtime, output):
            found += roofline(bench, shapes, options.runs)
    result = {
        "what": "kernels",
        "dataset": manifest.dataset,
        **m.described(runtime),
        "n": options.runs,
        "images": len(bench.images),
        "images_per_round": options.images_per_round,
        "traffic": f"{IMAGE_BYTES} bytes read, {INDEX_BYTES} of indices, 3072 values written, per image",
        "clock": CLOCK,
        "outputs": OUTPUTS,
        "cases": found,
    }
    print(large_batches(result), end="")
    m.finish(result, table_of(result), m.result_path(result, manifest.dataset, options.out))


def roofline(bench: Bench, shapes: list[Case], runs: int) -> list[dict[str, Any]]:
    """Measures each case and its copy, in interleaved rounds."""
    measures: dict[str, Callable[[], float]] = {}
    for case in shapes:
        measures[f"{case.name}: kernel"], measures[f"{case.name}: copy"] = bench.kernel(case), bench.copy(case)
    for measure in measures.values():
        measure()  # compiles, and touches the memory
    seconds = m.interleave(measures, runs, f"kernels, output {shapes[0].output}")
    rows = []
    for case in shapes:
        kernel, copy = seconds[f"{case.name}: kernel"], seconds[f"{case.name}: copy"]
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


def large_batches(result: dict[str, Any]) -> str:
    """A line for each output and type: the fraction of the copy's bandwidth at batches of at least `LARGE` images."""
    fractions: dict[str, list[float]] = {}
    for case in result["cases"]:
        if case["batch"] >= LARGE:
            name = f"{case['output']}, {case['dtype']}, {case['threads']} threads"
            fractions.setdefault(name, []).append(case["fraction_of_copy"]["median"])
    return "".join(
        f"{name}: {min(found):.0%} to {max(found):.0%} of the copy's bandwidth at {LARGE:,} images and more\n"
        for name, found in fractions.items()
    )


def table_of(result: dict[str, Any]) -> m.Table:
    """A row for each case."""
    header = ("output, type, threads, batch", "images/s", "GB/s", "copy GB/s", "fraction of copy")
    rows = []
    for case in result["cases"]:
        label = f"{case['output']}, {case['dtype']}, {case['threads']}, {case['batch']}"
        speeds = [m.ranged(case[key]) for key in ("images_per_s", "gb_per_s", "copy_gb_per_s")]
        rows.append([label, *speeds, m.ranged(case["fraction_of_copy"], lambda value: f"{value:.0%}")])
    return header, rows
