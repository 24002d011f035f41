"""`python -m bench time_to_accuracy`: trains a recipe with several seeds, each in its own process.

An interrupted benchmark resumes: finished seeds are not trained again if data and code revision are the same.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure import Table, check_out, check_runs, mean_interval, result_path
from fastcifar.cli.parsing import parse
from fastcifar.data.manifest import load_manifest
from fastcifar.errors import RunFailedError
from fastcifar.evaluation import evaluations_of
from fastcifar.files import write_json
from fastcifar.runs.record import code_revision, load_record

ACCURACIES = ("test_accuracy", "test_accuracy_tta")
SHARED = ("recipe", "dataset", "dataset_sha256", "epochs", "steps", "parameters", "flops", "device", "amp",
          "cpu_kernels", "hardware", "versions", "code_revision")  # fmt: skip
"""Fields of a record that are the same in all runs."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train a recipe with several seeds; report the mean accuracy and the median time."""

    recipe: str
    """Name of the recipe."""
    runs: int = 3
    """Number of seeds."""
    first_seed: int = 0
    """First seed; the others follow."""
    target: float = 0.9
    """Target accuracy from 0 to 1; the fraction of runs that reach it is reported."""
    data: Path = Path("data")
    """Folder of the prepared data."""
    out: Path | None = None
    """Result file. Default: a file in bench/results/ named after the benchmark."""


def main(arguments: list[str]) -> None:
    """Trains, prints a line for each run, writes the JSON and prints it without the runs as the last line."""
    options = parse(Options, arguments, prog="python -m bench time_to_accuracy")
    check_runs(options.runs)
    partial = partial_path(options.recipe, options.data)
    check_out(options.out)
    records = {record["seed"]: record for record in load_partial(partial)}
    wanted = range(options.first_seed, options.first_seed + options.runs)
    for seed in wanted:
        if seed not in records:
            records[seed] = train_once(["--recipe", options.recipe], seed, options.data)
            write_json(partial, {"runs": list(records.values())})
        print(f"{options.recipe} seed {seed}: {outcome(records[seed])}", flush=True)
    result = summarise([records[seed] for seed in wanted], options.target)
    target = result_path(result, subject_of(result)) if options.out is None else options.out
    write_json(target, result)
    print(f"wrote {target}")
    print(json.dumps({key: value for key, value in result.items() if key != "runs"}))


def partial_path(subject: str, data: Path) -> Path:
    """Where the records of an interrupted benchmark are kept; the name depends on the data and the code revision.

    Raises UserError if `data` is not prepared.
    """
    digests = "-".join(split.sha256[:12] for split in load_manifest(data).splits.values())
    return Path(tempfile.gettempdir()) / f"fastcifar-{subject}-{digests}-{code_revision()}.json"


def load_partial(path: Path) -> list[dict[str, Any]]:
    """The records of an interrupted benchmark; none if there is no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["runs"]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def subject_of(result: dict[str, Any]) -> str:
    """The recipe in file names; with data other than CIFAR-10, followed by its kind and digest."""
    if result["dataset"] == "cifar10":
        return result["recipe"]
    return f"{result['recipe']}-{result['dataset']}-{result['dataset_sha256'][:6]}"


def train_once(arguments: list[str], seed: int, data: Path) -> dict[str, Any]:
    """Trains in a new process and returns the record; the run folder is deleted. Raises RunFailedError."""
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "fastcifar", "train", *arguments, "--seed", str(seed)]
        command += ["--data", str(data), "--runs", runs]
        if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
            raise RunFailedError(f"the run with seed {seed} failed; see its error message above")
        return load_record(next(Path(runs).iterdir()))


def outcome(record: dict[str, Any]) -> str:
    """Accuracies and clocks of a run, in words."""
    names = evaluations_of(record["evaluation"]).values()
    accuracies = [f"{name} {record[key]:.2%}" for name, key in zip(names, ACCURACIES, strict=True)]
    clocks = [f"{name.removesuffix('_s')} {value:.1f} s" for name, value in record["clock"].items()]
    return f"{', '.join(accuracies)}; {', '.join(clocks)}"


def primary_metric(record: dict[str, Any]) -> str:
    """The key of the accuracy that the recipe fixed as its primary metric before the run."""
    return ACCURACIES[record["evaluation"] != "single_view"]


def summarise(records: list[dict[str, Any]], target: float) -> dict[str, Any]:
    """The result file: means of the accuracies, medians of the clocks, all records."""
    first, metric = records[0], primary_metric(records[0])
    clock = {}
    for name in ("train_s", "run_s", "process_s"):
        seconds = [record["clock"][name] for record in records]
        clock[name] = {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}
    return {
        "what": "time_to_accuracy",
        **{key: first[key] for key in SHARED},
        "n": len(records),
        "primary_metric": metric,
        **mean_interval([record[metric] for record in records]),
        "target": target,
        "fraction_at_target": sum(record[metric] >= target for record in records) / len(records),
        **{name: mean_interval([record[name] for record in records]) for name in ACCURACIES},
        "clock": clock,
        "runs": records,
    }


def table_of(result: dict[str, Any]) -> Table:
    """A row for each kind of evaluation."""
    rows = []
    names = evaluations_of(result["runs"][0]["evaluation"]).values()
    for key, name in zip(ACCURACIES, names, strict=True):
        spread = ["-" if result[key][k] is None else f"{100 * result[key][k]:.2f}" for k in ("ci95", "sd")]
        label = name + (" (primary metric)" if key == result["primary_metric"] else "")
        rows.append([label, f"{result[key]['mean']:.2%}", *spread])
    return ("evaluation", "mean", "± 95%", "sd"), rows
