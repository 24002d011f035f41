"""`python -m bench time_to_accuracy`: a recipe with several seeds, each in a process of its own.

A run that is interrupted is taken up again: seeds whose record is there already are not repeated, as long as images
and code revision are the same.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastcifar.analysis.statistics import interval
from fastcifar.cli.parsing import parse
from fastcifar.config import evaluations_of
from fastcifar.data.manifest import load_manifest
from fastcifar.errors import RunFailedError, UserError
from fastcifar.files import write_json
from fastcifar.runs.record import code_revision, load_record

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train a recipe with several seeds and say how accurate it is and how long it takes."""

    recipe: str
    """The recipe, as `python -m fastcifar.train --recipe` takes it."""
    runs: int = 3
    """How many seeds."""
    first_seed: int = 0
    """The first of them; the others follow."""
    target: float = 0.9
    """Accuracy, as a fraction, whose fraction of runs is reported."""
    data: Path = Path("data")
    """Prepared data."""
    out: Path | None = None
    """The result file; by default one in bench/results/ that says what it holds."""


def main(arguments: list[str]) -> None:
    """Trains, prints a table, writes the JSON; its last line is the JSON without the runs."""
    options = parse(Options, arguments, prog="python -m bench time_to_accuracy")
    if options.runs < 1:
        raise UserError(f"runs is {options.runs}, but must be at least 1")
    partial = partial_path(options.recipe, options.data)
    # made before anything is trained: git keeps no empty folder
    (RESULTS if options.out is None else options.out.parent).mkdir(parents=True, exist_ok=True)
    records = _finished(partial)
    for seed in range(options.first_seed, options.first_seed + options.runs):
        if not any(record["seed"] == seed for record in records):
            records.append(_run(options, seed))
            write_json(partial, {"runs": records})
        print(_row(next(record for record in records if record["seed"] == seed)), flush=True)
    wanted = range(options.first_seed, options.first_seed + options.runs)
    result = summarise([record for record in records if record["seed"] in wanted], options.target)
    target = _result_path(result) if options.out is None else options.out
    write_json(target, result)
    print(f"written to {target}")
    print(json.dumps({key: value for key, value in result.items() if key != "runs"}))


def partial_path(subject: str, data: Path) -> Path:
    """Where the records of an interrupted measurement wait for the next start, by images and code revision.

    Raises UserError where `data` is not prepared.
    """
    images = "-".join(split.sha256[:12] for split in load_manifest(data).splits.values())  # in their order
    return Path(tempfile.gettempdir()) / f"fastcifar-{subject}-{images}-{code_revision()}.json"


def subject_of(result: dict[str, Any]) -> str:
    """The recipe as names of result files have it; other images than CIFAR-10's stand behind it, with a digest."""
    if result["dataset"] == "cifar10":
        return result["recipe"]
    return f"{result['recipe']}-{result['dataset']}-{result['dataset_sha256'][:6]}"


def _finished(path: Path) -> list[dict[str, Any]]:
    try:
        records = json.loads(path.read_text(encoding="utf-8"))["runs"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [record for record in records if record["code_revision"] == code_revision()]


def _run(options: Options, seed: int) -> dict[str, Any]:
    return train_once(["--recipe", options.recipe], seed, options.data)


def train_once(arguments: list[str], seed: int, data: Path) -> dict[str, Any]:
    """The record of a training with these arguments, in a process of its own; nothing else of it is kept."""
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "fastcifar.train", *arguments, "--seed", str(seed)]
        command += ["--data", str(data), "--runs", runs]
        if subprocess.run(command, stdout=subprocess.DEVNULL, check=False, env=os.environ).returncode:
            raise RunFailedError(f"the run with seed {seed} failed; its message stands above")
        return load_record(next(Path(runs).iterdir()))


def summarise(records: list[dict[str, Any]], target: float) -> dict[str, Any]:
    """The result file: accuracies of one view, of more views and of the one that counts; medians of the clocks."""
    evaluation = records[0]["evaluation"]
    counted = "test_accuracy" if evaluation == "single_view" else "test_accuracy_tta"
    accuracies = [record[counted] for record in records]
    mean, sd, ci95 = interval(accuracies)
    views = {}
    for name in ("test_accuracy", "test_accuracy_tta"):
        view_mean, view_sd, view_ci = interval([record[name] for record in records])
        views[name] = {"mean": view_mean, "sd": view_sd, "ci95": view_ci}
    clock = {}
    for name in ("train_s", "run_s", "process_s"):
        seconds = [record["clock"][name] for record in records]
        clock[name] = {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}
    first = records[0]
    shared = (
        "recipe",
        "dataset",
        "dataset_sha256",
        "epochs",
        "steps",
        "parameters",
        "flops",
        "device",
        "amp",
        "cpu_kernels",
    )
    return {
        "what": "time_to_accuracy",
        **{key: first[key] for key in (*shared, "hardware", "versions", "code_revision")},
        "n": len(records),
        "counts": counted,
        "mean": mean,
        "sd": sd,
        "ci95": ci95,
        "target": target,
        "fraction_at_target": sum(accuracy >= target for accuracy in accuracies) / len(accuracies),
        **views,
        "clock": clock,
        "runs": records,
    }


def _row(record: dict[str, Any]) -> str:
    clock, (_, more) = record["clock"], evaluations_of(record["evaluation"]).values()
    return (
        f"{record['recipe']} seed {record['seed']}: one view {record['test_accuracy']:.2%}, {more} "
        f"{record['test_accuracy_tta']:.2%}; train {clock['train_s']:.1f} s, run {clock['run_s']:.1f} s, "
        f"process {clock['process_s']:.1f} s"
    )


def _result_path(result: dict[str, Any]) -> Path:
    device = "cpu" if result["device"] == "cpu" else result["hardware"]["gpu"].lower().replace(" ", "-")
    return RESULTS / f"time_to_accuracy-{subject_of(result)}-{device}-n{result['n']}.json"


if __name__ == "__main__":
    from fastcifar.cli.console import run_command

    run_command(main)
