import functools
import os
from typing import Any

import pytest

from bench.isolated_runner import race
from fastcifar.errors import RunFailedError


class Counter:
    def __init__(self, start: int, fails_at: int | None = None, dies: bool = False) -> None:
        self.count, self.fails_at, self.dies = start, fails_at, dies

    def turn(self) -> dict[str, float]:
        self.count += 1
        if self.count == self.fails_at:
            if self.dies:
                os._exit(3)
            raise ValueError("too many")
        return {"count": self.count, "process": os.getpid()}

    def facts(self) -> dict[str, Any]:
        return {"last": self.count}


def test_each_has_a_process_a_warm_up_and_its_turns():
    raced = race({"a": functools.partial(Counter, 0), "b": functools.partial(Counter, 100)}, 3, "test")
    assert [turn["count"] for turn in raced["a"]["turns"]] == [2, 3, 4]
    assert raced["b"]["warm_up"]["count"] == 101
    assert raced["b"]["last"] == 104
    processes = {turn["process"] for one in raced.values() for turn in one["turns"]}
    assert len(processes) == 2
    assert os.getpid() not in processes
    assert raced["a"]["memory_mib"] >= 0
    assert raced["a"]["workers_mib"] == 0


@pytest.mark.parametrize(("dies", "message"), [(False, "a: ValueError: too many"), (True, "process of a ended")])
def test_a_contestant_that_fails_ends_the_race(dies: bool, message: str):
    with pytest.raises(RunFailedError, match=message):
        race({"a": functools.partial(Counter, 0, fails_at=2, dies=dies)}, 2, "test")
