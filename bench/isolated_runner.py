"""Contestants in a process each, that take turns: no one's threads, compiler or memory touch another's figures."""

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

LONGEST_TURN_S = 900.0
"""A turn that takes longer has failed: FFCV's loader waits for ever when one of its threads ends by an error."""
FAREWELL_S = 10.0
MIB = 2**20


class Contestant(Protocol):
    """Something that can be measured again and again."""

    def turn(self) -> dict[str, float]:
        """One repetition; its figures."""
        ...

    def facts(self) -> dict[str, Any]:
        """What does not vary between repetitions; asked for at the end."""
        ...


def race(builders: Mapping[str, Callable[[], Contestant]], runs: int, label: str) -> dict[str, dict[str, Any]]:
    """Builds each contestant in a process of its own, lets each warm up with a turn, then `runs` interleaved rounds.

    The builders must be picklable. Returns, by name, `turns` (a list), `warm_up` (the first turn, not among them),
    `build_s` (imports and construction), and the facts with the memory of the process.
    """
    with contextlib.ExitStack() as stack:
        corners: dict[str, _Corner] = {}
        with progress(f"{label}: building", len(builders), "contestants") as bar:
            for done, (name, build) in enumerate(builders.items(), 1):
                corners[name] = stack.enter_context(_corner(name, build))  # one at a time, so build_s is its own
                bar.update(done)
        turns = interleave({name: corner.turn for name, corner in corners.items()}, runs, label)
        return {name: {**corner.opening, **corner.end(), "turns": turns[name]} for name, corner in corners.items()}


class _Corner:
    """The parent's side of one contestant."""

    def __init__(self, name: str, connection: Connection) -> None:
        self.name, self.connection = name, connection
        self.opening = self._answer()

    def turn(self) -> dict[str, float]:
        self.connection.send("turn")
        return self._answer()

    def end(self) -> dict[str, Any]:
        self.connection.send("end")
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        try:
            if not self.connection.poll(LONGEST_TURN_S):
                raise RunFailedError(f"{self.name} took longer than {LONGEST_TURN_S:.0f} s for a turn")
            answer = self.connection.recv()
        except (EOFError, ConnectionError):
            raise RunFailedError(f"the process of {self.name} ended before its turn did") from None
        if isinstance(answer, str):
            raise RunFailedError(f"{self.name}: {answer}")
        return answer


@contextlib.contextmanager
def _corner(name: str, build: Callable[[], Contestant]) -> Iterator[_Corner]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_contest, args=(theirs, build), name=name)
    process.start()
    theirs.close()
    try:
        yield _Corner(name, ours)
    finally:
        ours.close()  # which ends the process
        process.join(FAREWELL_S)
        if process.is_alive():
            process.kill()
            process.join()


def _contest(connection: Connection, build: Callable[[], Contestant]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and closes the pipe
    try:
        import torch  # noqa: F401  (before the baseline: everyone needs it)

        before = _memory("VmRSS")
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak starts anew
        start = time.perf_counter()
        contestant = build()
        built = time.perf_counter() - start
        connection.send({"build_s": built, "warm_up": contestant.turn()})
        while connection.recv() == "turn":
            connection.send(contestant.turn())
        memory = {"memory_mib": max(0.0, _memory("VmHWM") - before), "workers_mib": _workers_memory()}
        connection.send({**contestant.facts(), **memory})
    except (EOFError, ConnectionError):
        return
    except Exception as error:  # noqa: BLE001  (whatever it is, the parent has to say it)
        connection.send(f"{type(error).__name__}: {error}")


def _memory(field: str) -> float:
    """A field of /proc/self/status in MiB; VmHWM, unlike ru_maxrss, does not begin with that of the parent."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / MIB
    return 0.0


def _workers_memory() -> float:
    """MiB that the worker processes hold and share with nobody, now."""
    total = 0
    for child in multiprocessing.active_children():
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{child.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Private_Clean:", "Private_Dirty:")):
                    total += int(line.split()[1]) * 1024
    return total / MIB


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0))
