"""`python -m bench epochs`: training epochs of one network, from plain PyTorch to fastcifar, one change at a time."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from bench.isolated_runner import cores, run_isolated
from bench.measure import Table, check_out, check_runs, described, finish, ranged, ratios, result_path, summary
from bench.stages import Task, TimedTraining, stages
from fastcifar.config import Config
from fastcifar.data.prepared import load_manifest
from fastcifar.errors import UserError
from fastcifar.models.resnet import ResNetConfig
from fastcifar.runtime.device import Runtime, select_runtime

PARTS = ("data_s", "step_s", "evaluation_s")
CLOCK = {
    "data_s": "perf_counter around requesting each training batch, from the start of the epoch",
    "step_s": "around copy to the device, forward, backward and update; on a GPU until it is idle after the last step",
    "evaluation_s": "from requesting the first test batch until the number of correct predictions is known",
    "epoch_s": "the sum of the three",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Time training epochs in stages, each in its own process, in interleaved rounds."""

    data: Path = Path("data")
    """Folder of the prepared data."""
    out: Path | None = None
    """Result file, or an existing folder for it. Default: a file in bench/results/ named after the benchmark."""
    runs: int = 3
    """Timed repetitions of each stage, after one warm-up."""
    network: Literal["resnet", "speed"] = "resnet"
    """The reference ResNet, or the network of the speed recipes."""
    width: int = 16
    """Channels of the network's first layer; the published width is 64."""
    fraction: float = 0.1
    """Fraction of an epoch, and of the test set, that a repetition uses."""
    batch_size: int = 500
    """Images per batch."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to train on."""
    threads: int | None = None
    """CPU threads. Default: PyTorch's choice."""
    only: tuple[str, ...] = ()
    """Names of the stages to time. Default: all."""
    quick: bool = False
    """One repetition of two batches, to check that the benchmark works."""


def _task(options: Options, runtime: Runtime) -> Task:
    """The task of all stages. AMP on a CPU is bfloat16 even where float32 is faster, because the stage measures AMP."""
    splits = load_manifest(options.data).splits
    if not 0 < options.fraction <= 1:
        raise UserError(f"fraction is {options.fraction}, but must be above 0 and at most 1")
    if not 1 <= options.batch_size <= splits["train"].samples:
        raise UserError(f"batch_size is {options.batch_size}, but must be 1 to {splits['train'].samples}")
    train, test = (max(1, round(splits[split].samples * options.fraction)) for split in ("train", "test"))
    if options.quick:
        train, test = 2 * options.batch_size, min(options.batch_size, splits["test"].samples)
    return Task(
        data=options.data,
        network=options.network,
        width=options.width,
        batch_size=options.batch_size,
        device=runtime.device.type,
        threads=runtime.threads,
        dtype=torch.bfloat16 if runtime.device.type == "cpu" else runtime.dtype,
        train_images=max(train, options.batch_size),
        test_images=test,
    )


def _candidates(options: Options, task: Task) -> dict[str, Callable[[], TimedTraining]]:
    known = stages(task.device)
    unknown = set(options.only) - set(known)
    if unknown:
        raise UserError(f"unknown stage {', '.join(sorted(unknown))}; choose from {', '.join(known)}")
    chosen = [name for name in known if not options.only or name in options.only]
    return {name: functools.partial(TimedTraining, known[name], task) for name in chosen}


def main(arguments: list[str]) -> None:
    """Measures, prints a table, writes the JSON and prints it as the last line."""
    from fastcifar.cli.parsing import parse

    options = parse(Options, arguments, prog="python -m bench epochs")
    check_runs(options.runs)
    network = ResNetConfig(width=options.width)
    runtime = select_runtime(Config(device=options.device, threads=options.threads, cpu_kernels="torch", model=network))
    task = _task(options, runtime)
    check_out(options.out)
    runs = 1 if options.quick else options.runs
    measured = run_isolated(_candidates(options, task), runs, "epochs")
    result = {
        "what": "epochs",
        "dataset": load_manifest(options.data).dataset,
        **described(runtime),
        "n": runs,
        "network": options.network,
        "width": options.width,
        "fraction": options.fraction,
        "batch_size": options.batch_size,
        "amp": str(task.dtype).removeprefix("torch."),
        "workers": cores(),
        "clock": CLOCK,
        "stages": compare(measured),
    }
    finish(result, table_of(result), result_path(result, f"{options.network}{options.width}", options.out))


def compare(measured: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The parts and the sum of each stage, with its speed relative to the first stage and to the previous one."""
    epochs = {name: [sum(rep[part] for part in PARTS) for rep in one["repetitions"]] for name, one in measured.items()}
    names = list(epochs)
    compared: dict[str, dict[str, Any]] = {}
    for previous, name in zip(names[:1] + names, names, strict=False):
        one = measured[name]
        compared[name] = {
            **{key: one[key] for key in ("images", "test_images", "build_s", "memory_mib", "workers_mib")},
            "epoch_s": summary(epochs[name]),
            **{part: summary([rep[part] for rep in one["repetitions"]]) for part in PARTS},
            "warm_up_s": sum(one["warm_up"][part] for part in PARTS),
            "last_loss": one["repetitions"][-1]["loss"],
            "speedup_over_first": ratios(epochs[names[0]], epochs[name]),
            "speedup_over_previous": ratios(epochs[previous], epochs[name]),
        }
    return compared


def table_of(result: dict[str, Any]) -> Table:
    """A row for each stage."""
    header = ("stage", "epoch s", "data s", "step s", "evaluation s", "speed-up", "over previous")
    keys = ("epoch_s", *PARTS, "speedup_over_first", "speedup_over_previous")
    return header, [[name, *(ranged(one[key]) for key in keys)] for name, one in result["stages"].items()]
