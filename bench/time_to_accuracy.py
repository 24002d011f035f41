"""`python -m bench time_to_accuracy`: trains a recipe with several seeds.

All seeds are trained in one process, and some of them again in a process of their own, which gives the process clock.
An interrupted benchmark resumes: finished seeds are not trained again if data and code revision are the same.
"""

import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure import Table, check_out, check_runs, mean_interval, result_path, source_digest
from bench.training import Device, Train, in_one_process, in_own_processes, recipe_config
from fastcifar.cli.parsing import parse
from fastcifar.config import Config
from fastcifar.data.manifest import load_manifest
from fastcifar.errors import UserError
from fastcifar.evaluation import evaluations_of
from fastcifar.files import write_json
from fastcifar.runs.record import code_revision

ACCURACIES = ("test_accuracy", "test_accuracy_tta")
SHARED = ("recipe", "dataset", "dataset_sha256", "epochs", "steps", "parameters", "flops", "device", "amp",
          "cpu_kernels", "hardware", "versions", "code_revision")  # fmt: skip
"""Fields of a record that are the same in all runs."""
RUNS_SHARE = 0.7
"""Of `seconds`, before the separate starts; one of them takes several runs' time."""


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
    processes: int = 3
    """Seeds, at most `runs`, that are trained again in a process of their own, for the process clock."""
    isolated: bool = False
    """Train every seed in a process of its own, and none in a common one."""
    seconds: float | None = None
    """Stop after so many seconds with the runs that are done, at least one. Default: no limit."""
    data: Path = Path("data")
    """Folder of the prepared data."""
    device: Device = "auto"
    """Device to train on."""
    quick: bool = False
    """A small network and a few steps, to check that the benchmark works."""
    out: Path | None = None
    """Result file, or an existing folder for it. Default: a file in bench/results/ named after the benchmark."""


def main(arguments: list[str]) -> None:
    """Trains, prints a line for each run, writes the JSON and prints it without the runs as the last line."""
    options = parse(Options, arguments, prog="python -m bench time_to_accuracy")
    check_runs(options.runs)
    if options.processes < 0:
        raise UserError(f"processes is {options.processes}, but must be at least 0")
    config = recipe_config(options.recipe, options.data, options.device, quick=options.quick)
    check_out(options.out)
    runs, processes = _trained(options, config)
    result = summarise(runs, options.target, processes)
    target = result_path(result, subject_of(result), options.out)
    write_json(target, result)
    print(f"wrote {target}")
    print(json.dumps({key: value for key, value in result.items() if key not in ("runs", "processes")}))


def _trained(options: Options, config: Config) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """The records of the runs and of the separate starts; None for the latter if every run has its own process."""
    kept = _Kept(partial_path(_partial_subject(options), options.data))
    wanted = range(options.first_seed, options.first_seed + options.runs)
    deadline = _deadline(options.seconds)
    if options.isolated:
        with in_own_processes(config) as train:
            return kept.train("runs", wanted, train, deadline(1.0)), None
    with in_one_process(config) as train:
        runs = kept.train("runs", wanted, train, deadline(RUNS_SHARE if options.processes else 1.0))
    with in_own_processes(config) as train:
        starts = wanted[: min(options.processes, len(runs))]
        return runs, kept.train("processes", starts, train, deadline(1.0), least=0)


def _deadline(seconds: float | None) -> Callable[[float], float]:
    """A function from a share of the `seconds` to the point of `time.monotonic` at which it is used up."""
    begin = time.monotonic()
    return lambda share: math.inf if seconds is None else begin + share * seconds


class _Kept:
    """Records on disk, from which an interrupted benchmark resumes."""

    def __init__(self, path: Path) -> None:
        self.path, self.longest = path, 0.0  # seconds of a training
        self.records = {kind: {one["seed"]: one for one in load_partial(path, kind)} for kind in ("runs", "processes")}

    def train(
        self, kind: str, seeds: Sequence[int], train: Train, deadline: float, least: int = 1
    ) -> list[dict[str, Any]]:
        """The records of the seeds; trains those that are not here while they fit before the deadline, or `least`."""
        records, done = self.records[kind], []
        for seed in seeds:
            if seed not in records:
                start = time.monotonic()
                if len(done) >= least and start + self.longest > deadline:
                    break
                records[seed] = train(seed)
                self.longest = max(self.longest, time.monotonic() - start)
                write_json(self.path, {name: list(found.values()) for name, found in self.records.items()})
            done.append(records[seed])
            own = ", in a process of its own" if kind == "processes" else ""
            print(f"{records[seed]['recipe']} seed {seed}{own}: {outcome(records[seed])}", flush=True)
        return done


def _partial_subject(options: Options) -> str:
    ways = {"isolated": options.isolated, "quick": options.quick, options.device: options.device != "auto"}
    return "-".join([options.recipe, *(name for name, used in ways.items() if used)])


def partial_path(subject: str, data: Path) -> Path:
    """Where the records of an interrupted benchmark are kept; the name depends on the data and the code revision.

    Raises UserError if `data` is not prepared.
    """
    digests = "-".join(split.sha256[:12] for split in load_manifest(data).splits.values())
    code = f"{code_revision()}-{source_digest('fastcifar')[:12]}"  # the revision may be unknown
    return Path(tempfile.gettempdir()) / f"fastcifar-{subject}-{digests}-{code}.json"


def load_partial(path: Path, kind: str = "runs") -> list[dict[str, Any]]:
    """The records of an interrupted benchmark; none if there is no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))[kind]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def subject_of(result: dict[str, Any]) -> str:
    """The recipe in file names; with data other than CIFAR-10, followed by its kind and digest."""
    if result["dataset"] == "cifar10":
        return result["recipe"]
    return f"{result['recipe']}-{result['dataset']}-{result['dataset_sha256'][:6]}"


def outcome(record: dict[str, Any]) -> str:
    """Accuracies and clocks of a run, in words."""
    names = evaluations_of(record["evaluation"]).values()
    accuracies = [f"{name} {record[key]:.2%}" for name, key in zip(names, ACCURACIES, strict=True)]
    clocks = [
        f"{name.removesuffix('_s')} {value:.1f} s" for name, value in record["clock"].items() if value is not None
    ]
    return f"{', '.join(accuracies)}; {', '.join(clocks)}"


def primary_metric(record: dict[str, Any]) -> str:
    """The key of the accuracy that the recipe fixed as its primary metric before the run."""
    return ACCURACIES[record["evaluation"] != "single_view"]


def summarise(
    records: list[dict[str, Any]], target: float, processes: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """The result file: means of the accuracies, medians of the clocks, all records.

    `processes`: the records of separate starts, which give the process clock; None if every run is one.
    """
    first, metric = records[0], primary_metric(records[0])
    separate = {} if processes is None else _of_separate_starts(records, processes)
    return {
        "what": "time_to_accuracy",
        **{key: first[key] for key in SHARED},
        **{key: first[key] for key in ("paths",) if key in first},
        "n": len(records),
        "primary_metric": metric,
        **mean_interval([record[metric] for record in records]),
        "target": target,
        "fraction_at_target": sum(record[metric] >= target for record in records) / len(records),
        **{name: mean_interval([record[name] for record in records]) for name in ACCURACIES},
        "clock": _clocks(records, records if processes is None else processes),
        **separate,
        "runs": records,
    }


def _clocks(runs: list[dict[str, Any]], processes: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    found = {}
    for name, records in (("train_s", runs), ("run_s", runs), ("process_s", processes)):
        seconds = [one["clock"][name] for one in records if one["clock"][name] is not None]
        if seconds:
            found[name] = {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}
    return found


def _of_separate_starts(runs: list[dict[str, Any]], processes: list[dict[str, Any]]) -> dict[str, Any]:
    """Which clock was measured where, the separate starts, and whether the weights of a seed are the same in both."""
    weights = {run["seed"]: run["weights_sha256"] for run in runs}
    same = [one["weights_sha256"] == weights[one["seed"]] for one in processes if one["seed"] in weights]
    return {
        "clock_from": {
            **dict.fromkeys(("train_s", "run_s"), f"{len(runs)} runs in one process"),
            "process_s": f"{len(processes)} separate starts of `python -m fastcifar train`",
        },
        "same_bits": all(same) if same else None,
        "processes": [{key: one[key] for key in ("seed", "clock", "weights_sha256")} for one in processes],
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
