"""`python -m bench soak`: what the tests do a hundred times, done often enough to be worth a figure.

`betons` damages prepared sets, `fuzz` runs a fuzzer guided by coverage over every reader of untrusted input, `leaks`
counts threads, files and memory, `kills` kills trainings that go on until they are done. Each writes
`results/soak-<name>-cpu-n<number>.json`, the findings first, and ends with 1 if there are any. A new soak is a function
in SOAKS; what it returns is all that the file and the report need.
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

from bench.measure import check_out, described, finish, result_path, table
from fastcifar.data.prepared import write_set
from fastcifar.data.sources.synthetic import synthetic_set
from fastcifar.errors import RunFailedError, UserError

TESTS = Path(__file__).parents[1] / "tests"
CHUNK_BETONS = 500
DEFAULTS = {"betons": 2000, "fuzz": 100_000, "leaks": 1000, "kills": 50}
OUTCOMES = ("refused", "equal", "other")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Do something that must not fail, often."""

    what: tyro.conf.Positional[Literal["betons", "fuzz", "leaks", "kills"]]
    """Damaged sets for both loaders, inputs of a fuzzer, half-read epochs and loaders, or killed trainings."""
    times: int | None = None
    """Damages of each family, inputs of each target, half-read epochs, or kills; by default 2000, 100000, 1000, 50."""
    targets: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TARGET...")] = ()
    """Targets of the fuzzer; by default all in tests/fuzz/targets.py."""
    work: Path = Path(tempfile.gettempdir()) / "fastcifar-fuzz"
    """Where the fuzzer keeps corpus and counts from call to call, and leaves what it finds."""
    minutes: float = math.inf
    """After which the fuzzer stops, to be gone on with by the same command."""
    out: Path | None = None
    """The result file; by default one in bench/results/ that says what it holds."""


@dataclass(frozen=True)
class Soaked:
    """What a soak did: a table with a sentence about it, what should not have happened, and all the rest."""

    header: list[str]
    rows: list[list[Any]]
    note: str
    findings: list[str]
    details: dict[str, Any]
    seconds: float = 0.0  # where it is not the time of this call


def main(arguments: list[str]) -> None:
    """Soaks, prints a table, writes the JSON; its last line is the JSON. RunFailedError if something was found."""
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
    finish(result, table(soaked.header, soaked.rows), options.out or result_path(result, options.what))
    if soaked.findings:
        raise RunFailedError(f"{len(soaked.findings)} findings, the first: {soaked.findings[0]}")


def _betons(times: int, options: Options) -> Soaked:
    sys.path.insert(0, str(TESTS / "faults"))
    watch: Any = importlib.import_module("watch")
    families: dict[str, Any] = {}
    rows, findings = [], []
    for family in ("damaged", "hostile"):
        tally = watch.Tally()
        for first in range(0, times, CHUNK_BETONS):  # a process each, so that none of them gets old
            watch.try_betons(family, first, min(CHUNK_BETONS, times - first), tally)
        outcomes = {loader: dict(counted) for loader, counted in tally.outcomes.items()}
        families[family] = {"tried": tally.tried, "ways": dict(sorted(tally.ways.items())), "outcomes": outcomes}
        findings += tally.findings
        for loader, counted in tally.outcomes.items():
            rows.append([f"{family}, {loader}", tally.tried, *(counted[kind] for kind in OUTCOMES)])
    note = (
        "Damaged: the manifest is left as it was. Hostile: it is made to fit the damage, or is itself changed. Equal: "
        "bit for bit the batches of the undamaged set. Other: both loaders give the same batches, labels in range"
    )
    return Soaked(["family, loader", "tried", *OUTCOMES], rows, note, findings, {"families": families})


def _fuzz(times: int, options: Options) -> Soaked:
    if find_spec("atheris") is None:
        raise UserError('the fuzzer is not installed: `pip install -e ".[fuzz]"`')
    sys.path.insert(0, str(TESTS / "fuzz"))
    campaign: Any = importlib.import_module("campaign")
    known = tuple(importlib.import_module("targets").TARGETS)
    for name in options.targets:
        if name not in known:
            raise UserError(f"no target is called {name}: choose from {', '.join(known)}")
    until = time.monotonic() + 60 * options.minutes
    targets = {name: campaign.run_target(name, times, options.work / name, until) for name in options.targets or known}
    findings = [f"{name}: {text}" for name, tally in targets.items() for text in tally.findings]
    short = [f"{name} {tally.inputs:,}" for name, tally in targets.items() if tally.inputs < times]
    if short and not findings:
        raise RunFailedError(f"time is up, the same command goes on: inputs so far are {', '.join(short)} of {times:,}")
    header = ["target", "inputs", "seconds", "edges", "features", "corpus"]
    rows = [[name, *(getattr(tally, column) for column in header[1:])] for name, tally in targets.items()]
    note = "Inputs that atheris made, guided by the edges of the readers and of Python's own that they reach"
    seconds = sum(tally.seconds for tally in targets.values())
    return Soaked(header, rows, note, findings, {"limits": campaign.LIMITS}, seconds)


def _leaks(times: int, options: Options) -> Soaked:
    rows, findings = [], []
    lifetimes = max(times // 5, 11)
    command = [sys.executable, "-W", "ignore", str(TESTS / "faults" / "leaks.py"), str(times), str(lifetimes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunFailedError(f"the loaders' process ended with {done.returncode}: {done.stderr[-300:]}")
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
    note = "Counted from a tenth of the way on, the garbage collected, with a pause of 5 ms after each epoch"
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
        "Runs of 480 steps with a checkpoint after each, killed at random moments and resumed until they were done. "
        "Half-written files: temporary ones that a kill left; they are removed by the next checkpoint"
    )
    header = ["signal", "kills", "runs", "different moments", "half-written files", "other weights"]
    findings = [f"a run ended in the weights {digest[:12]}" for digest in done.different]
    return Soaked(header, rows, note, findings, {"moments": done.moments})


SOAKS: dict[str, Callable[[int, Options], Soaked]] = {
    "betons": _betons,
    "fuzz": _fuzz,
    "leaks": _leaks,
    "kills": _kills,
}


if __name__ == "__main__":
    from fastcifar.cli.console import run_command

    run_command(main)
