"""Progress display of long work: a live bar on a terminal, otherwise a plain line every few seconds."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, Protocol, TextIO

PLAIN_LINE_EVERY_S = 5.0


class Progress(Protocol):
    """A progress display; `update` is cheap enough to be called in every step."""

    def update(self, done: float, fraction: float | None = None, **fields: str) -> None:
        """Shows that `done` units of the total are done; `fields` follow the rate and the time left as `name value`.

        `fraction`: how much of the work is done, 0 to 1, if that differs from `done / total` because units differ in
        duration.
        """
        ...


class _Rate:
    """Recent units per second, averaged over at least a second to keep the display steady."""

    def __init__(self, done: float) -> None:
        self.at, self.done, self.value = time.monotonic(), done, 0.0

    def update(self, done: float) -> float:
        now = time.monotonic()
        if now - self.at >= 1 or not self.value:
            self.value = (done - self.done) / max(now - self.at, 1e-9)
            self.at, self.done = now, done
        return self.value


class _PlainProgress:
    """Prints a line every few seconds and one at the end, for logs, CI and pipes."""

    def __init__(self, label: str, total: float, unit: str, stream: TextIO, first: float, begin: float) -> None:
        self.label, self.total, self.unit, self.stream = label, total, unit, stream
        self.first, self.begin = first, begin
        self.started = self.printed = time.monotonic()
        self.rate = _Rate(first)
        self.last: float | None = None

    def update(self, done: float, fraction: float | None = None, **fields: str) -> None:
        now = time.monotonic()
        if done < self.total and now - self.printed < PLAIN_LINE_EVERY_S:
            return
        if done == self.last:
            return
        self.printed, self.last = now, done
        if fraction is None:
            fraction = done / self.total if self.total else 1.0
        print(self._line(done, fraction, now - self.started, fields), file=self.stream, flush=True)

    def _line(self, done: float, fraction: float, seconds: float, fields: dict[str, str]) -> str:
        rate = self.rate.update(done) if done < self.total else (done - self.first) / max(seconds, 1e-9)
        unfinished = fraction > self.begin and done < self.total
        left = f"{seconds * (1 - fraction) / (fraction - self.begin):.0f} s left" if unfinished else f"{seconds:.1f} s"
        extra = "".join(f"  {name} {value}" for name, value in fields.items())
        amounts = f"{done:.0f}/{self.total:.0f} {self.unit}".rstrip()
        return f"{self.label}  {amounts} ({fraction:.0%})  {rate:.1f} {self.unit}/s  {left}{extra}"


class _RichProgress:
    """A live bar. Rich redraws it ten times a second in its own thread, so `update` only stores numbers."""

    def __init__(self, label: str, total: float, unit: str, bar: Any, first: float) -> None:
        self.bar, self.total, self.unit, self.rate = bar, total, unit, _Rate(first)
        self.task = bar.add_task(label, total=total, rate="", extra="")

    def update(self, done: float, fraction: float | None = None, **fields: str) -> None:
        extra = "  ".join(f"{name} {value}" for name, value in fields.items())
        completed = done if fraction is None else fraction * self.total
        self.bar.update(self.task, completed=completed, rate=f"{self.rate.update(done):.1f} {self.unit}/s", extra=extra)


@contextlib.contextmanager
def progress(
    label: str,
    total: float,
    unit: str = "",
    stream: TextIO | None = None,
    *,
    first: float = 0.0,
    begin: float = 0.0,
) -> Iterator[Progress]:
    """Displays the progress of `total` units of work on `stream` (default: standard error).

    For resumed work, `first` is the number of units and `begin` the fraction of the work that were done before.
    """
    output = sys.stderr if stream is None else stream
    if not output.isatty() or os.environ.get("TERM") == "dumb":
        yield _PlainProgress(label, total, unit, output, first, begin)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[extra]}"),
    )
    with Bar(*columns, console=Console(file=output), refresh_per_second=10) as bar:
        yield _RichProgress(label, total, unit, bar, first)
