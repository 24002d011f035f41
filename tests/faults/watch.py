"""Lets `beton_worker.py` try many damages, and notices when one of them ends its process or keeps it busy for ever."""

import queue
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

WORKER = Path(__file__).with_name("beton_worker.py")
START_S, TRY_S = 120.0, 30.0  # until the first try: imports and compilation


@dataclass
class Tally:
    """What came of the seeds so far: counts of outcomes by loader, of ways, and what should not have happened."""

    tried: int = 0
    ways: Counter[str] = field(default_factory=Counter)
    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: {"stream": Counter(), "resident": Counter()})
    findings: list[str] = field(default_factory=list)


def try_betons(family: str, first: int, count: int, tally: Tally) -> None:
    """Tries `count` seeds from `first` on; `family` as in `beton_worker.py`. A process that ends is started again."""
    end = first + count
    while first < end:
        first = _one_worker(family, first, end, tally)


def _one_worker(family: str, first: int, end: int, tally: Tally) -> int:
    """Runs a worker until it ends or hangs, and returns the first seed that has not been tried."""
    command = [sys.executable, "-W", "ignore", str(WORKER), family, str(first), str(end - first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stderr is not None
        lines: queue.Queue[str] = queue.Queue()
        threads = [
            threading.Thread(target=_forward, args=(worker.stdout, lines)),
            threading.Thread(target=_last_line, args=(worker.stderr, said := [""])),
        ]
        for thread in threads:
            thread.start()
        trying, patience = "", START_S
        while True:
            try:
                line = lines.get(timeout=patience)
            except queue.Empty:
                worker.kill()
                tally.findings.append(f"{family} {trying or first}: no answer within {patience:.0f} s")
                break
            if not line:
                break
            what, seed, *rest = line.split()
            if what == "try":
                trying, patience = f"{seed} {rest[0]}", TRY_S
                tally.ways[rest[0]] += 1
            else:
                _note(family, trying, rest, tally)
                first, trying = int(seed) + 1, ""
        code = worker.wait()
        for thread in threads:
            thread.join()
    if code == 0 and first == end:
        return end
    name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    if not trying:
        raise RuntimeError(f"the worker could not begin with seed {first}: {name}: {said[0]}")
    tally.findings.append(f"{family} {trying}: {name}: {said[0]}")
    tally.tried += 1
    return int(trying.split()[0]) + 1


def _note(family: str, trying: str, outcomes: list[str], tally: Tally) -> None:
    tally.tried += 1
    for loader, outcome in zip(tally.outcomes, outcomes, strict=True):
        kind = outcome.partition(":")[0].rpartition("/")[2]
        tally.outcomes[loader][kind] += 1
        if kind == "WRONG":
            tally.findings.append(f"{family} {trying}: {loader}: {outcome}")


def _forward(stream: IO[str], lines: queue.Queue[str]) -> None:
    for line in stream:
        lines.put(line)
    lines.put("")


def _last_line(stream: IO[str], said: list[str]) -> None:
    for line in stream:
        said[0] = line.strip() or said[0]
