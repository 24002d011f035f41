"""Progress of long work: a live bar on a terminal, a plain line every few seconds elsewhere."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, Protocol, TextIO

PLAIN_LINE_EVERY_S = 5.0


class Progress(Protocol):
    """Told how far the work is; cheap enough to be told at every step."""

    def update(self, done: float, fraction: float | None = None, **fields: str) -> None:
        """`done` of the total; `fields` are shown as `name value` behind the rate and the time left.

        `fraction` of the work that is done, 0 to 1, where it is not that of the units: some take longer than others.
        """
        ...


class _Rate:
    """Units a second, lately: over at least a second, so that a display has something steady to show."""

    def __init__(self, done: float) -> None:
        self.at, self.done, self.value = time.monotonic(), done, 0.0

    def update(self, done: float) -> float:
        now = time.monotonic()
        if now - self.at >= 1 or not self.value:
            self.value = (done - self.done) / max(now - self.at, 1e-9)
            self.at, self.done = now, done
        return self.value


class _PlainProgress:
    """A line every few seconds, and one at the end: for logs, CI and pipes."""

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
        going = fraction > self.begin and done < self.total
        left = f"{seconds * (1 - fraction) / (fraction - self.begin):.0f} s left" if going else f"{seconds:.1f} s"
        extra = "".join(f"  {name} {value}" for name, value in fields.items())
        amounts = f"{done:.0f}/{self.total:.0f} {self.unit}".rstrip()
        return f"{self.label}  {amounts} ({fraction:.0%})  {rate:.1f} {self.unit}/s  {left}{extra}"


class _RichProgress:
    """A live bar; rich redraws it ten times a second from its own thread, so `update` only stores numbers."""

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
    """Progress of `total` units of work on `stream` (standard error): a bar on a terminal, plain lines elsewhere.

    Of what was done before, `first` are the units and `begin` is the fraction of the work.
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
