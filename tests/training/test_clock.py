"""The watches: what is added, what is taken out, when the device is waited for."""

import contextlib
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from fastcifar.training import clock as clock_module
from fastcifar.training.clock import Clock, Stopwatch, process_seconds


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A time that passes only when told to."""
    at = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(clock_module, "time", SimpleNamespace(perf_counter=lambda: at.seconds))
    return at


def test_a_stopwatch_adds_up(now: SimpleNamespace) -> None:
    watch = Stopwatch(lambda: None)
    for seconds in (1.0, 2.5):
        watch.start()
        now.seconds += seconds
        watch.stop()
        now.seconds += 50
    assert watch.seconds == 3.5


def test_both_ends_wait_for_the_device(now: SimpleNamespace) -> None:
    """What was queued before the start is not timed, what was queued since is."""

    def wait() -> None:
        now.seconds += 10

    watch = Stopwatch(wait)
    watch.start()
    now.seconds += 1
    watch.stop()
    assert watch.seconds == 11


def test_a_stopwatch_refuses_to_be_started_or_stopped_twice() -> None:
    watch = Stopwatch(lambda: None)
    with pytest.raises(AssertionError, match="the stopwatch is not running"):
        watch.stop()
    watch.start()
    with pytest.raises(AssertionError, match="the stopwatch is running"):
        watch.start()


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
    code = (
        "import time; time.sleep(0.3); from fastcifar.training.clock import process_seconds; print(process_seconds())"
    )
    before = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.29 <= float(done.stdout) <= time.perf_counter() - before + 0.02


def test_process_seconds_go_on() -> None:
    first = process_seconds()
    time.sleep(0.03)
    second = process_seconds()
    assert first is not None
    assert second is not None
    assert 0.01 < second - first < 5
