"""`python -m bench soak`: the fault tests of the suite with thousands of repetitions.

`betons` reads damaged prepared data, `fuzz` runs a coverage-guided fuzzer on every reader of untrusted input, `leaks`
counts threads, open files and memory, `kills` kills and resumes trainings. Each writes a result file and exits with
1 if it found a fault. A new soak is a function in SOAKS that returns a `Soaked`.
"""

import importlib
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from bench.measure import check_out, described, finish, result_path
from fastcifar.data.prepared import write_set
from fastcifar.data.sources.synthetic import synthetic_set
from fastcifar.errors import RunFailedError, UserError

TESTS = Path(__file__).parents[1] / "tests"
CHUNK_BETONS = 500
DEFAULTS = {"betons": 2000, "fuzz": 100_000, "leaks": 1000, "kills": 50}
OUTCOMES = ("refused", "equal", "other")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Repeat a fault test many times."""

    what: tyro.conf.Positional[Literal["betons", "fuzz", "leaks", "kills"]]
    """betons: damaged data in both loaders. fuzz: the fuzzer. leaks: half-read epochs. kills: killed trainings."""
    times: int | None = None
    """Damaged sets per family, inputs per target, half-read epochs, or kills; by default 2000, 100000, 1000, 50."""
    targets: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TARGET...")] = ()
    """Fuzz targets. Default: all in tests/fuzz/targets.py."""
    work: Path = Path(tempfile.gettempdir()) / "fastcifar-fuzz"
    """Folder in which the fuzzer keeps its corpus, counts and findings between calls."""
    minutes: float = math.inf
    """Stop the fuzzer after this time; the same command resumes it."""
    out: Path | None = None
    """Result file, or an existing folder for it. Default: a file in bench/results/ named after the benchmark."""


@dataclass(frozen=True)
class Soaked:
    """The result of a soak: a table, a note that explains it, the faults found, and details for the result file."""

    header: list[str]
    rows: list[list[Any]]
    note: str
    findings: list[str]
    details: dict[str, Any]
    seconds: float = 0.0  # if it is not the time of this call


def main(arguments: list[str]) -> None:
    """Runs the soak, prints a table, writes the JSON and prints it. Raises RunFailedError if it found faults."""
    from fastcifar.cli.parsing import parse
    from fastcifar.config import Config
    from fastcifar.runtime.device import select_runtime

    options = parse(Options, arguments, prog="python -m bench soak")
    times = DEFAULTS[options.what] if options.times is None else options.times
    if times < 1:
        raise UserError(f"times is {times}, but must be at least 1")
    check_out(options.out)
    started = time.monotonic()
    soaked = SOAKS[options.what](times, options)
    facts = described(select_runtime(Config(device="cpu")))
    result = {"what": "soak", "subject": options.what, "dataset": "synthetic", **facts, "n": times}
    seconds = soaked.seconds or time.monotonic() - started
    result |= {**asdict(soaked), "seconds": round(seconds, 1)}
    finish(result, (soaked.header, soaked.rows), result_path(result, options.what, options.out))
    if soaked.findings:
        raise RunFailedError(f"{len(soaked.findings)} faults found, the first: {soaked.findings[0]}")


def _betons(times: int, options: Options) -> Soaked:
    sys.path.insert(0, str(TESTS / "faults"))
    watch: Any = importlib.import_module("watch")
    families: dict[str, Any] = {}
    rows, findings = [], []
    for family in ("damaged", "hostile"):
        tally = watch.Tally()
        for first in range(0, times, CHUNK_BETONS):  # a new process for each chunk
            watch.try_betons(family, first, min(CHUNK_BETONS, times - first), tally)
        outcomes = {loader: dict(counted) for loader, counted in tally.outcomes.items()}
        families[family] = {"tried": tally.tried, "ways": dict(sorted(tally.ways.items())), "outcomes": outcomes}
        findings += tally.findings
        for loader, counted in tally.outcomes.items():
            rows.append([f"{family}, {loader}", tally.tried, *(counted[kind] for kind in OUTCOMES)])
    note = (
        "Damaged: the manifest is unchanged. Hostile: the manifest fits the damage or is changed itself. Equal: the "
        "batches are bit-identical to those of the undamaged set. Other: valid batches, the same in both loaders"
    )
    return Soaked(["family, loader", "tried", *OUTCOMES], rows, note, findings, {"families": families})


def _fuzz(times: int, options: Options) -> Soaked:
    if find_spec("atheris") is None:
        raise UserError('the fuzzer is not installed; run `pip install -e ".[fuzz]"`')
    sys.path.insert(0, str(TESTS / "fuzz"))
    campaign: Any = importlib.import_module("campaign")
    known = tuple(importlib.import_module("targets").TARGETS)
    for name in options.targets:
        if name not in known:
            raise UserError(f"unknown target {name}; choose from {', '.join(known)}")
    until = time.monotonic() + 60 * options.minutes
    targets = {name: campaign.run_target(name, times, options.work / name, until) for name in options.targets or known}
    findings = [f"{name}: {text}" for name, tally in targets.items() for text in tally.findings]
    short = [f"{name} {tally.inputs:,}" for name, tally in targets.items() if tally.inputs < times]
    if short and not findings:
        raise RunFailedError(
            f"time is up, run the same command to continue; inputs so far: {', '.join(short)} of {times:,}"
        )
    header = ["target", "inputs", "seconds", "edges", "features", "corpus"]
    rows = [[name, *(getattr(tally, column) for column in header[1:])] for name, tally in targets.items()]
    note = "Inputs generated by atheris, guided by the code edges they reach in our readers and in Python's"
    seconds = sum(tally.seconds for tally in targets.values())
    return Soaked(header, rows, note, findings, {"limits": campaign.LIMITS}, seconds)


def _leaks(times: int, options: Options) -> Soaked:
    rows, findings = [], []
    lifetimes = max(times // 5, 11)
    command = [sys.executable, "-W", "ignore", str(TESTS / "faults" / "leaks.py"), str(times), str(lifetimes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunFailedError(f"the process of the loaders exited with {done.returncode}: {done.stderr[-300:]}")
    loaders: dict[str, Any] = json.loads(done.stdout)
    for kind, both in loaders.items():
        for name, series in both.items():
            first, last = series[0], series[-1]
            rows.append(
                [f"{kind}, {name.replace('_', ' ')}", *(f"{a} to {b}" for a, b in zip(first, last, strict=True))]
            )
            if first[1:3] != last[1:3] or last[3] - first[3] > 5:
                findings.append(f"{kind}, {name}: {first} became {last}")
    header = ["loader", "done", "threads", "open files", "resident MiB"]
    note = "From a tenth of the repetitions to the end, after garbage collection, with a pause of 5 ms after each epoch"
    return Soaked(header, rows, note, findings, {"lifetimes": lifetimes, "series": loaders})


def _kills(times: int, options: Options) -> Soaked:
    sys.path.insert(0, str(TESTS / "faults"))
    kills: Any = importlib.import_module("kills")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_set(synthetic_set(train=600, test=200, seed=3), data)
        done = kills.soak(kills.arguments(data, 40), Path(folder), kills=times, seed=times)
    rows = [["SIGKILL", done.kills, done.runs, len(set(done.moments)), done.left_parts, len(done.different)]]
    note = (
        "Runs of 480 steps with a checkpoint after each step, killed at random moments and resumed until finished. "
        "Half-written files: temporary files left by a kill, deleted by the next checkpoint"
    )
    header = ["signal", "kills", "runs", "different moments", "half-written files", "other weights"]
    findings = [f"a run ended with the weights {digest[:12]}" for digest in done.different]
    return Soaked(header, rows, note, findings, {"moments": done.moments})


SOAKS: dict[str, Callable[[int, Options], Soaked]] = {
    "betons": _betons,
    "fuzz": _fuzz,
    "leaks": _leaks,
    "kills": _kills,
}
