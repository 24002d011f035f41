"""Runs `beton_worker.py` over many damaged sets, and records when one crashes or hangs its process."""

import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

WORKER = Path(__file__).with_name("beton_worker.py")
START_S, TRY_S = 120.0, 30.0  # longest silence before the first try (imports and compilation), and during a try


@dataclass
class Tally:
    """Counts over the seeds so far: kinds of damage, outcomes by loader, and what should not have happened."""

    tried: int = 0
    ways: Counter[str] = field(default_factory=Counter)
    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: {"stream": Counter(), "resident": Counter()})
    findings: list[str] = field(default_factory=list)


def try_betons(family: str, first: int, count: int, tally: Tally) -> None:
    """Tries `count` seeds from `first` on, `family` as in `beton_worker.py`; restarts a worker that ends early."""
    end = first + count
    while first < end:
        first = _one_worker(family, first, end, tally)


def _one_worker(family: str, first: int, end: int, tally: Tally) -> int:
    """Runs a worker until it ends or hangs; returns the next seed to try."""
    command = [sys.executable, "-W", "ignore", str(WORKER), family, str(first), str(end - first)]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as worker,
    ):
        assert worker.stdout is not None
        lines: queue.Queue[str] = queue.Queue()
        reader = threading.Thread(target=_forward, args=(worker.stdout, lines))
        reader.start()
        first, trying = _follow(lines, worker, family, first, tally)
        code = worker.wait()
        reader.join()
        errors.seek(0)
        last_error = errors.read().strip().rpartition("\n")[2]
    if code == 0 and first == end:
        return end
    name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    if not trying:
        raise RuntimeError(f"the worker could not start with seed {first}: {name}: {last_error}")
    tally.findings.append(f"{family} {trying}: {name}: {last_error}")
    tally.tried += 1
    return int(trying.split()[0]) + 1


def _follow(
    lines: "queue.Queue[str]", worker: "subprocess.Popen[str]", family: str, first: int, tally: Tally
) -> tuple[int, str]:
    """Counts what a worker prints until it ends; kills it if it hangs. Returns the next seed and the unfinished try."""
    trying, patience = "", START_S
    while True:
        try:
            line = lines.get(timeout=patience)
        except queue.Empty:
            worker.kill()
            tally.findings.append(f"{family} {trying or first}: no answer within {patience:.0f} s")
            return first, trying
        if not line:
            return first, trying
        what, seed, *rest = line.split()
        if what == "try":
            trying, patience = f"{seed} {rest[0]}", TRY_S
            tally.ways[rest[0]] += 1
        else:
            _count_outcomes(family, trying, rest, tally)
            first, trying = int(seed) + 1, ""


def _count_outcomes(family: str, trying: str, outcomes: list[str], tally: Tally) -> None:
    tally.tried += 1
    for loader, outcome in zip(tally.outcomes, outcomes, strict=True):
        kind = outcome.partition(":")[0].rpartition("/")[2]
        tally.outcomes[loader][kind] += 1
        if kind == "WRONG":
            tally.findings.append(f"{family} {trying}: {loader}: {outcome}")


def _forward(stream: IO[str], lines: "queue.Queue[str]") -> None:
    for line in stream:
        lines.put(line)
    lines.put("")
