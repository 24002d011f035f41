"""The only timer. It measures three durations, which are always named and shown together.

train    first training byte read -> last optimiser step, without evaluations
run      beton opened -> primary test metric known: with the statistics that the network takes from the images,
         augmentation and evaluations. Without what needs no data and is made before (`prepared.py`): compiled kernels,
         the network with its initial weights, the optimiser, and on a GPU the CUDA graphs. Without the second final
         evaluation. With FFCV's compilation, which happens in every process that uses the stream loader
process  command typed -> result printed: everything, with imports and compilation
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
        """Starts; the stopwatch must be stopped."""
        assert self._started is None, "the stopwatch is running"
        self.synchronise()
        self._started = time.perf_counter()

    def stop(self) -> None:
        """Stops, and adds the seconds since `start`."""
        assert self._started is not None, "the stopwatch is not running"
        self.synchronise()
        self.seconds += time.perf_counter() - self._started
        self._started = None

    def so_far(self) -> float:
        """Seconds up to now, running or stopped; does not wait for the device."""
        return self.seconds + (0.0 if self._started is None else time.perf_counter() - self._started)


class Clock:
    """The stopwatches of one run."""

    def __init__(self, synchronise: Callable[[], None], *, is_process: bool = True) -> None:
        """`is_process`: whether the run is all that its process does, so that the process clock is the run's."""
        self.train = Stopwatch(synchronise)
        self.run = Stopwatch(synchronise)
        self.is_process = is_process

    def seconds(self) -> dict[str, float | None]:
        """All three durations, for the record."""
        return {
            "train_s": round(self.train.seconds, 4),
            "run_s": round(self.run.seconds, 4),
            "process_s": process_seconds() if self.is_process else None,
        }

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[None]:
        """Stops the train stopwatch during an evaluation; the run stopwatch goes on."""
        self.train.stop()
        try:
            yield
        finally:
            self.train.start()


def process_seconds() -> float | None:
    """Seconds since this process started, with the kernel's resolution of 10 ms; None where /proc is missing."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        ticks = os.sysconf("SC_CLK_TCK")
        started = int(fields[19]) / ticks  # field 22 of proc(5): starttime
        return round(time.clock_gettime(time.CLOCK_BOOTTIME) - started, 2)
    except (OSError, AttributeError, ValueError, IndexError):
        return None
