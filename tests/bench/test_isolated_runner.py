"""Candidates in their own processes: repetitions, facts, failures."""

import functools
import os
from typing import Any

import pytest

from bench.isolated_runner import run_isolated
from fastcifar.errors import RunFailedError


class Counter:
    def __init__(self, start: int, fails_at: int | None = None, dies: bool = False) -> None:
        self.count, self.fails_at, self.dies = start, fails_at, dies

    def measure(self) -> dict[str, float]:
        self.count += 1
        if self.count == self.fails_at:
            if self.dies:
                os._exit(3)
            raise ValueError("too many")
        return {"count": self.count, "process": os.getpid()}

    def facts(self) -> dict[str, Any]:
        return {"last": self.count}


def test_each_candidate_has_a_process_a_warm_up_and_its_repetitions():
    measured = run_isolated({"a": functools.partial(Counter, 0), "b": functools.partial(Counter, 100)}, 3, "test")
    assert [repetition["count"] for repetition in measured["a"]["repetitions"]] == [2, 3, 4]
    assert measured["b"]["warm_up"]["count"] == 101
    assert measured["b"]["last"] == 104
    processes = {repetition["process"] for one in measured.values() for repetition in one["repetitions"]}
    assert len(processes) == 2
    assert os.getpid() not in processes
    assert measured["a"]["memory_mib"] >= 0
    assert measured["a"]["workers_mib"] == 0


@pytest.mark.parametrize("dies", [False, True])
def test_a_candidate_that_fails_ends_the_benchmark(dies: bool):
    with pytest.raises(RunFailedError, match="^a: " + ("" if dies else "ValueError: too many")):
        run_isolated({"a": functools.partial(Counter, 0, fails_at=2, dies=dies)}, 2, "test")
