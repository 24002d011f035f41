"""`python -m bench soak`: what the tests do a hundred times, done often enough to be worth a figure.

`betons` damages prepared sets, `fuzz` runs a fuzzer guided by coverage over every reader of untrusted input, `leaks`
counts threads, files and memory, `kills` kills trainings that go on until they are done. Each writes
`results/soak-<name>-cpu-n<number>.json`, the findings first, and ends with 1 if there are any. A new soak is a function
in SOAKS; what it returns is all that the file and the report need.
"""

import importlib
import json
import re
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
from fastcifar.data.beton import write_set
from fastcifar.data.synthetic import synthetic_set
from fastcifar.errors import RunFailedError, UserError

FOUND = re.compile(
    r"^\s*([\w.]*(?:Error|Exit|Warning|Exception)\b.*|.*ERROR: libFuzzer.*|.*Test unit written.*)$", re.M
)
TESTS = Path(__file__).parents[1] / "tests"
CHUNK_BETONS = 500
DEFAULTS = {"betons": 2000, "fuzz": 100_000, "leaks": 1000, "kills": 50}
OUTCOMES = ("refused", "equal", "other")
LIMITS = {"timeout_s": 10, "rss_limit_mb": 1600, "max_len": 16384}
"""Of one input; the process itself has 560 MB, PyTorch and all."""


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
    """Where the fuzzer keeps its corpus from call to call, and leaves what it finds."""
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


def main(arguments: list[str]) -> None:
    """Soaks, prints a table, writes the JSON; its last line is the JSON. RunFailedError if something was found."""
    from fastcifar.command_line import parse
    from fastcifar.config import Config
    from fastcifar.device import place

    options = parse(Options, arguments, prog="python -m bench soak")
    times = DEFAULTS[options.what] if options.times is None else options.times
    if times < 1:
        raise UserError(f"times is {times}, but must be at least 1")
    check_out(options.out)
    started = time.monotonic()
    soaked = SOAKS[options.what](times, options)
    facts = described(place(Config(device="cpu")))
    result = {"what": "soak", "subject": options.what, "dataset": "synthetic", **facts, "n": times}
    result |= {"seconds": round(time.monotonic() - started, 1), **asdict(soaked)}
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
    known = tuple(importlib.import_module("targets").TARGETS)
    for name in options.targets:
        if name not in known:
            raise UserError(f"no target is called {name}: choose from {', '.join(known)}")
    targets: dict[str, Any] = {}
    findings = []
    for name in options.targets or known:
        targets[name] = one = _fuzz_target(name, times, options.work / name)
        findings += [f"{name}: {text}" for text in one.pop("findings")]
    header = ["target", *next(iter(targets.values()))]
    note = (
        "Inputs that atheris made, guided by coverage (edges and features reached) of the readers and of Python's own"
    )
    rows = [[name, *one.values()] for name, one in targets.items()]
    return Soaked(header, rows, note, findings, {"limits": LIMITS, "targets": targets})


def _fuzz_target(name: str, times: int, work: Path) -> dict[str, Any]:
    """Runs the driver until `times` inputs were tried; it ends at a finding, so it may be more than once."""
    work.mkdir(parents=True, exist_ok=True)
    tried, findings, found = 0, [], ""
    started = time.monotonic()
    while tried < times and len(findings) < 10:
        options = [f"-runs={times - tried}", f"-timeout={LIMITS['timeout_s']}", f"-max_len={LIMITS['max_len']}"]
        options += [f"-rss_limit_mb={LIMITS['rss_limit_mb']}", f"-seed={len(findings) + 1}"]
        command = [sys.executable, "-W", "ignore", str(TESTS / "fuzz" / "driver.py"), name, str(work), *options]
        done = subprocess.run(command, capture_output=True, check=False)
        found = done.stderr.decode("utf-8", "replace")
        executed = re.findall(r"stat::number_of_executed_units:\s*(\d+)", found)
        tried += int(executed[-1]) if executed else 0
        if done.returncode:
            findings.append(_finding(found))
    coverage = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", found)[-1:] or [("0", "0", "0")]
    edges, features, corpus = map(int, coverage[0])
    seconds = round(time.monotonic() - started, 1)
    return {
        "inputs": tried, "seconds": seconds, "edges": edges, "features": features, "corpus": corpus,
        "findings": findings,
    }  # fmt: skip


def _finding(text: str) -> str:
    """What libFuzzer and Python say of an input that went wrong, in a line."""
    return "; ".join(dict.fromkeys(line.strip() for line in FOUND.findall(text))) or text[-300:]


def _leaks(times: int, options: Options) -> Soaked:
    loaders: dict[str, Any] = {}
    rows, findings = [], []
    lifetimes = max(times // 5, 11)
    for kind in ("stream", "resident"):
        command = [sys.executable, "-W", "ignore", str(TESTS / "faults" / "leaks.py"), kind, str(times), str(lifetimes)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RunFailedError(f"the {kind} loader's process ended with {done.returncode}: {done.stderr[-300:]}")
        loaders[kind] = json.loads(done.stdout)
        for name, series in loaders[kind].items():
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
    from fastcifar.console import run_command

    run_command(main)
