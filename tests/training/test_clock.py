"""The stopwatches: what they add up, what they leave out, and when they wait for the device."""

import contextlib
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from fastcifar.training import clock as clock_module
from fastcifar.training.clock import Clock, Stopwatch


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A time that a test sets itself."""
    at = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(clock_module, "time", SimpleNamespace(perf_counter=lambda: at.seconds))
    return at


def test_a_stopwatch_adds_up_and_waits_for_the_device_at_both_ends(now: SimpleNamespace) -> None:
    """Work queued before the start is not timed; work queued since is."""

    def wait() -> None:
        now.seconds += 10

    watch = Stopwatch(wait)
    for seconds in (1.0, 2.5):
        watch.start()
        now.seconds += seconds
        watch.stop()
        now.seconds += 50
    assert watch.seconds == watch.so_far() == 23.5


def test_evaluations_are_on_the_run_clock_and_off_the_train_clock(now: SimpleNamespace) -> None:
    clock = Clock(lambda: None)
    clock.run.start()
    now.seconds += 1
    clock.train.start()
    now.seconds += 2
    with clock.evaluation():
        now.seconds += 4
    now.seconds += 8
    with contextlib.suppress(KeyError), clock.evaluation():
        now.seconds += 16
        raise KeyError
    now.seconds += 32
    clock.train.stop()
    now.seconds += 64
    clock.run.stop()
    assert clock.train.seconds == 42
    assert clock.run.seconds == 127


def test_process_seconds_count_from_the_start_of_the_process() -> None:
    """At least as long as the process slept, at most as long as it was observed, to the resolution of 10 ms."""
    code = (
        "import time; time.sleep(0.1); from fastcifar.training.clock import process_seconds; print(process_seconds())"
    )
    before = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.08 <= float(done.stdout) <= time.perf_counter() - before + 0.02
