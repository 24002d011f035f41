"""Runs each candidate of a benchmark in its own process, with interleaved repetitions.

Threads, compilers and memory of one candidate cannot influence another, and a drift of the machine hits all alike.
"""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from bench.measure import interleave
from fastcifar.errors import RunFailedError
from fastcifar.runtime.progress import progress

TIMEOUT_S = 900.0
"""Of a repetition: FFCV's loader blocks forever if one of its threads fails."""
EXIT_TIMEOUT_S = 10.0
MIB = 2**20


class Candidate(Protocol):
    """Something that is measured repeatedly."""

    def measure(self) -> dict[str, float]:
        """The figures of one repetition."""
        ...

    def facts(self) -> dict[str, Any]:
        """What is the same in all repetitions; called last."""
        ...


def run_isolated(builders: Mapping[str, Callable[[], Candidate]], runs: int, label: str) -> dict[str, dict[str, Any]]:
    """Builds each candidate in its own process, warms it up once, then measures `runs` interleaved rounds.

    The builders must be picklable. Returns for each name `repetitions` (a list), `warm_up` (the first repetition, not
    in the list), `build_s` (imports and construction), the facts, and the memory of the process.
    """
    with contextlib.ExitStack() as stack:
        processes: dict[str, _CandidateProcess] = {}
        with progress(f"{label}: building", len(builders), "candidates") as bar:
            for done, (name, build) in enumerate(builders.items(), 1):  # one at a time: build_s is undisturbed
                processes[name] = stack.enter_context(_started(name, build))
                bar.update(done)
        measured = interleave({name: process.measure for name, process in processes.items()}, runs, label)
        return {
            name: {**process.opening, **process.end(), "repetitions": measured[name]}
            for name, process in processes.items()
        }


class _CandidateProcess:
    """The parent's side of a candidate's process."""

    def __init__(self, name: str, connection: Connection) -> None:
        self.name, self.connection = name, connection
        self.opening = self._answer()

    def measure(self) -> dict[str, float]:
        self.connection.send("measure")
        return self._answer()

    def end(self) -> dict[str, Any]:
        self.connection.send("end")
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        try:
            if not self.connection.poll(TIMEOUT_S):
                raise RunFailedError(f"{self.name}: a repetition took longer than {TIMEOUT_S:.0f} s")
            answer = self.connection.recv()
        except (EOFError, ConnectionError):
            raise RunFailedError(f"{self.name}: its process ended unexpectedly") from None
        if isinstance(answer, str):
            raise RunFailedError(f"{self.name}: {answer}")
        return answer


@contextlib.contextmanager
def _started(name: str, build: Callable[[], Candidate]) -> Iterator[_CandidateProcess]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, build), name=name)
    process.start()
    theirs.close()
    try:
        yield _CandidateProcess(name, ours)
    finally:
        ours.close()  # ends the process
        process.join(EXIT_TIMEOUT_S)
        if process.is_alive():
            process.kill()
            process.join()


def _serve(connection: Connection, build: Callable[[], Candidate]) -> None:
    """The candidate's process: builds it, then measures for as long as the parent asks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent closes the pipe
    try:
        import torch  # noqa: F401  (before the memory baseline, because all candidates need it)

        before = _memory("VmRSS")
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, see proc(5)
        start = time.perf_counter()
        candidate = build()
        build_s = time.perf_counter() - start
        connection.send({"build_s": build_s, "warm_up": candidate.measure()})
        while connection.recv() == "measure":
            connection.send(candidate.measure())
        memory = {"memory_mib": max(0.0, _memory("VmHWM") - before), "workers_mib": _workers_memory()}
        connection.send({**candidate.facts(), **memory})
    except (EOFError, ConnectionError):
        return
    except Exception as error:  # noqa: BLE001  (the parent reports it, whatever it is)
        connection.send(f"{type(error).__name__}: {error}")


def _memory(field: str) -> float:
    """A field of /proc/self/status in MiB. VmHWM, unlike ru_maxrss, does not start at the peak of the parent."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / MIB
    return 0.0


def _workers_memory() -> float:
    """Private memory of the DataLoader workers in MiB."""
    total = 0
    for child in multiprocessing.active_children():
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{child.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Private_Clean:", "Private_Dirty:")):
                    total += int(line.split()[1]) * 1024
    return total / MIB


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))
