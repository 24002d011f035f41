"""`fastcifar train`: trains a recipe and prints the result."""

import os
from pathlib import Path
from typing import Any

from fastcifar.data.cifar10 import not_cifar10
from fastcifar.errors import UserError

DESCRIPTION = """Train a network on the prepared data.

A recipe is a complete configuration. The flags below change single fields of it.

--recipe NAME     start from another recipe
--config FILE     read fields from a TOML file first; the config.toml of a run repeats that run
--import MODULE   import a module that registers components of your own, from Python's path or the current folder
--lr RATE         short for --optimizer.lr RATE
--lr found        choose the learning rates by a range test before training (see `fastcifar lr-find`)
--resume RUN      resume an unfinished run from its last checkpoint, with the same result as without interruption
--resume auto     resume the unfinished run in --runs that has these settings and the most steps; else start a new run
--summary         print the layers, output shapes, parameters and FLOPs of the network and exit
"""
SUMMARY = "--summary"


def main(arguments: list[str]) -> None:
    """Raises UserError, RunFailedError and InterruptedRunError."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages on Linux; torch reads it at its first allocation
    from fastcifar.cli.config_args import parse_config, take_lr, take_resume
    from fastcifar.runs.resume import AUTO, run_to_resume

    arguments, resume = take_resume(arguments)
    arguments, find_lr = take_lr(arguments)
    config = parse_config([argument for argument in arguments if argument != SUMMARY], DESCRIPTION)
    if SUMMARY in arguments:
        from fastcifar.models.layer_table import layer_table

        print(layer_table(config.model))
        return
    if find_lr and resume not in (None, AUTO):
        raise UserError(f"--lr found cannot be combined with --resume {resume}: a resumed run keeps its learning rates")

    from fastcifar.runtime.threads import keep_freed_memory
    from fastcifar.training.trainer import train

    keep_freed_memory()
    if find_lr:
        from fastcifar.analysis.lr_range import find_rates

        config, found = find_rates(config)
        print(found, flush=True)
    folder, record = train(config, run_to_resume(resume, config))
    print(summary(folder, record), flush=True)  # before the curves: a failed plot must not hide the result

    from fastcifar.analysis.curves import draw_curves

    draw_curves(folder)


def summary(folder: Path, record: dict[str, Any]) -> str:
    """The result of a run in five lines; figures of a data set other than CIFAR-10 are marked."""
    mark, clock = not_cifar10(record["dataset"]), record["clock"]
    from fastcifar.evaluation import SINGLE_VIEW, evaluations_of

    _, tta = evaluations_of(record["evaluation"]).values()
    primary = " (primary metric)"
    single_mark, tta_mark = (primary, "") if record["evaluation"] == SINGLE_VIEW else ("", primary)
    process = "" if clock["process_s"] is None else f"   process {clock['process_s']:.1f} s"
    resumed = "   (resumed; without the lost work)" if record.get("resumed_at") else ""
    return "\n".join(
        (
            f"test accuracy       {record['test_accuracy']:.2%}{single_mark}{mark}",
            f"  {tta:18}{record['test_accuracy_tta']:.2%}{tta_mark}{mark}",
            f"train accuracy      {record['train_accuracy']:.2%} (last epoch, augmented images){mark}",
            f"clock               train {clock['train_s']:.1f} s   run {clock['run_s']:.1f} s{process}{resumed}{mark}",
            f"run                 {folder}",
        )
    )
