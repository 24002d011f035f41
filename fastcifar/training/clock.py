"""The only timer. Three figures, always named and shown together.

train    first training byte touched -> last optimiser step, evaluations taken out
run      open the beton -> test accuracy known: reset, stem initialisation, augmentation and evaluation in;
         compiling our kernel is not (it happens once per machine), nor is what is evaluated beyond what counts;
         FFCV's compiling is (it happens in every process, and only with the stream loader)
process  command typed -> result printed: imports, JIT and all else in
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path


class Stopwatch:
    """Adds up the seconds between `start` and `stop`; both wait for the device first."""

    def __init__(self, synchronise: Callable[[], None]) -> None:
        self.synchronise = synchronise
        self.seconds = 0.0
        self._started: float | None = None

    def start(self) -> None:
        """Starts; a running watch is a mistake of ours."""
        assert self._started is None, "the stopwatch is running"
        self.synchronise()
        self._started = time.perf_counter()

    def stop(self) -> None:
        """Stops and adds what has passed."""
        assert self._started is not None, "the stopwatch is not running"
        self.synchronise()
        self.seconds += time.perf_counter() - self._started
        self._started = None

    def so_far(self) -> float:
        """Seconds up to now, whether it runs or not; does not wait for the device."""
        return self.seconds + (0.0 if self._started is None else time.perf_counter() - self._started)


class Clock:
    """The watches of one run."""

    def __init__(self, synchronise: Callable[[], None]) -> None:
        self.train = Stopwatch(synchronise)
        self.run = Stopwatch(synchronise)

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[None]:
        """An evaluation while training: on the run clock, off the train clock."""
        self.train.stop()
        try:
            yield
        finally:
            self.train.start()


def process_seconds() -> float | None:
    """Seconds since this process was started, to the kernel's tick of 10 ms; None where the system does not say."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        ticks = os.sysconf("SC_CLK_TCK")
        started = int(fields[19]) / ticks  # field 22 of proc(5): starttime
        return round(time.clock_gettime(time.CLOCK_BOOTTIME) - started, 2)
    except (OSError, AttributeError, ValueError, IndexError):
        return None
