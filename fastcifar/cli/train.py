"""`fastcifar train`: trains a recipe to the end and prints what came of it."""

import os
from pathlib import Path
from typing import Any

from fastcifar.config import evaluations_of
from fastcifar.data.cifar10 import not_cifar10
from fastcifar.errors import UserError

DESCRIPTION = """Train a network on the prepared data.

A recipe is a complete configuration; every field of it can be changed by the flags below. --config FILE reads fields
from TOML first (the config.toml of a run repeats that run). --summary prints the network's layers, output shapes,
parameters and FLOPs instead of training. --lr RATE is short for --optimizer.lr RATE; --lr found first looks for the
rates of the schedule's peak and ends by a range test (fastcifar lr-find), on the process clock. --resume
RUN goes on with an unfinished run from its last checkpoint, to the weights it would have had without the interruption;
--resume auto with the one in --runs that has these settings and got furthest, or else begins one. --debug shows where
an error came from.
"""
SUMMARY = "--summary"


def main(arguments: list[str]) -> None:
    """Parses, trains, prints. Raises UserError and RunFailedError."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read by torch when it first allocates: huge pages on Linux
    from fastcifar.cli.config_args import parse_config, take_rate, take_resume
    from fastcifar.runs.resume import AUTO, run_to_resume

    arguments, resume = take_resume(arguments)
    arguments, find = take_rate(arguments)
    config = parse_config([argument for argument in arguments if argument != SUMMARY], DESCRIPTION)
    if SUMMARY in arguments:
        from fastcifar.models.layer_table import layer_table

        print(layer_table(config.model))
        return

    from fastcifar.runtime.threads import keep_freed_memory
    from fastcifar.training.trainer import train

    keep_freed_memory()
    if find and resume not in (None, AUTO):
        raise UserError("--lr found and --resume do not go together: a run goes on with the rates that it has")
    if find:
        from fastcifar.analysis.lr_range import find_rates

        config, found = find_rates(config)
        print(found, flush=True)
    folder, record = train(config, run_to_resume(resume, config))

    from fastcifar.analysis.curves import draw_curves

    print(summary(folder, record), flush=True)  # first: the process clock ends here, and a result is not lost to a plot
    draw_curves(folder)


def summary(folder: Path, record: dict[str, Any]) -> str:
    """The result of a run in a few lines; every figure of another set than CIFAR-10 is marked."""
    mark = not_cifar10(record["dataset"])
    clock = record["clock"]
    process = "" if clock["process_s"] is None else f"   process {clock['process_s']:.1f} s"
    resumed = "   (resumed: what was lost is left out)" if record.get("resumed_at") else ""
    counts = [
        " (this one counts)" if kind == record["evaluation"] else "" for kind in evaluations_of(record["evaluation"])
    ]
    _, more = evaluations_of(record["evaluation"]).values()
    return "\n".join(
        (
            f"test accuracy       {record['test_accuracy']:.2%}{counts[0]}{mark}",
            f"  {more:18}{record['test_accuracy_tta']:.2%}{counts[1]}{mark}",
            f"train accuracy      {record['train_accuracy']:.2%} (last epoch, augmented){mark}",
            f"clock               train {clock['train_s']:.1f} s   run {clock['run_s']:.1f} s{process}{resumed}{mark}",
            f"run                 {folder}",
        )
    )
