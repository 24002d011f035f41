"""`python -m bench epochs`: training epochs of one network, from plain PyTorch to all of ours, one change at a time."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from bench.isolated_runner import cores, race
from bench.measure import check_out, check_runs, described, figure, finish, ratios, result_path, summary, table
from bench.stages import Task, Trained, stages
from fastcifar.config import Config, ResNetConfig
from fastcifar.data.prepared import load_manifest
from fastcifar.errors import UserError
from fastcifar.runtime.device import Runtime, select_runtime

PARTS = ("data_s", "step_s", "evaluation_s")
CLOCK = {
    "data_s": "perf_counter around asking for each training batch, starting with the epoch",
    "step_s": "around copy to the device, forward, backward and update; on a GPU until it is idle after the last one",
    "evaluation_s": "from asking for the first test batch until the number of right answers is known",
    "epoch_s": "the sum of the three",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Time training epochs in stages, each in a process of its own, in interleaved rounds."""

    data: Path = Path("data")
    """Prepared data."""
    out: Path | None = None
    """The result file; by default one in bench/results/ that says what it holds."""
    runs: int = 3
    """Timed epochs of each stage, after one that warms it up."""
    network: Literal["resnet", "speed"] = "resnet"
    """The brief's ResNet, or the network of the speed recipes."""
    width: int = 16
    """Channels of the network's first layer; 64 is the published width."""
    fraction: float = 0.1
    """Share of an epoch, and of the test set behind it, that a turn takes."""
    batch_size: int = 500
    """Images a batch."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    threads: int | None = None
    """CPU threads; None leaves torch's choice."""
    only: tuple[str, ...] = ()
    """Names of the stages to time; all by default."""
    quick: bool = False
    """One repetition of two batches: shows that it works, measures nothing."""


def _task(options: Options, runtime: Runtime) -> Task:
    """Sizes of the epoch; AMP's type is bfloat16 on a CPU even where float32 is faster, as that is what is measured."""
    splits = load_manifest(options.data).splits
    if not 0 < options.fraction <= 1:
        raise UserError(f"fraction is {options.fraction}, but must be above 0 and at most 1")
    if not 1 <= options.batch_size <= splits["train"].samples:
        raise UserError(f"batch_size is {options.batch_size}, but must be 1 to {splits['train'].samples}")
    train, test = (max(1, round(splits[split].samples * options.fraction)) for split in ("train", "test"))
    if options.quick:
        train, test = 2 * options.batch_size, min(options.batch_size, splits["test"].samples)
    dtype = torch.bfloat16 if runtime.device.type == "cpu" else runtime.dtype
    return Task(
        data=options.data,
        network=options.network,
        width=options.width,
        batch_size=options.batch_size,
        device=runtime.device.type,
        threads=runtime.threads,
        dtype=dtype,
        train_images=max(train, options.batch_size),
        test_images=test,
    )


def _line_up(options: Options, task: Task) -> dict[str, Callable[[], Trained]]:
    waterfall = stages(task.device)
    unknown = set(options.only) - set(waterfall)
    if unknown:
        raise UserError(f"no stage is called {', '.join(sorted(unknown))}: choose from {', '.join(waterfall)}")
    chosen = [name for name in waterfall if not options.only or name in options.only]
    return {name: functools.partial(Trained, waterfall[name], task) for name in chosen}


def main(arguments: list[str]) -> None:
    """Measures, prints a table, writes the JSON; the last line is the JSON."""
    from fastcifar.cli.parsing import parse

    options = parse(Options, arguments, prog="python -m bench epochs")
    check_runs(options.runs)
    network = ResNetConfig(width=options.width)
    runtime = select_runtime(Config(device=options.device, threads=options.threads, cpu_kernels="torch", model=network))
    task = _task(options, runtime)
    check_out(options.out)
    runs = 1 if options.quick else options.runs
    raced = race(_line_up(options, task), runs, "epochs")
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
        "stages": compare(raced),
    }
    finish(result, printed(result), options.out or result_path(result, f"{options.network}{options.width}"))


def compare(raced: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each stage's parts and sum, and how many times as fast as the first and as the one before it was."""
    whole = {name: [sum(turn[part] for part in PARTS) for turn in one["turns"]] for name, one in raced.items()}
    names = list(whole)
    compared: dict[str, dict[str, Any]] = {}
    for before, name in zip(names[:1] + names, names, strict=False):
        one = raced[name]
        compared[name] = {
            **{key: one[key] for key in ("images", "test_images", "build_s", "memory_mib", "workers_mib")},
            "epoch_s": summary(whole[name]),
            **{part: summary([turn[part] for turn in one["turns"]]) for part in PARTS},
            "warm_up_s": sum(one["warm_up"][part] for part in PARTS),
            "last_loss": one["turns"][-1]["loss"],
            "times_first": ratios(whole[names[0]], whole[name]),
            "times_before": ratios(whole[before], whole[name]),
        }
    return compared


def printed(result: dict[str, Any]) -> str:
    """The table of the terminal."""
    header = ("stage", "epoch s", "min", "max", "data s", "step s", "evaluation s", "x first", "x before")
    rows = [
        (
            name,
            *(figure(one["epoch_s"][key]) for key in ("median", "min", "max")),
            *(figure(one[part]["median"]) for part in PARTS),
            *(figure(one[key]["median"]) for key in ("times_first", "times_before")),
        )
        for name, one in result["stages"].items()
    ]
    return table(header, rows)


if __name__ == "__main__":
    from fastcifar.cli.console import run_command

    run_command(main)
