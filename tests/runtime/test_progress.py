"""The progress display: lines off a terminal, a bar on one."""

import contextlib
import io
import os
import pty
from types import SimpleNamespace

import pytest

from fastcifar.runtime import progress as module
from fastcifar.runtime.progress import progress


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    at = SimpleNamespace(seconds=50.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: at.seconds))
    return at


def test_plain_lines_are_throttled_and_show_rate_and_time_left(now: SimpleNamespace) -> None:
    stream = io.StringIO()
    with progress("train", 100, "steps", stream) as display:
        for done in range(1, 101):
            now.seconds += 0.25
            display.update(done, loss=f"{1 / done:.3f}")
    assert stream.getvalue().splitlines() == [
        "train  20/100 steps (20%)  4.0 steps/s  20 s left  loss 0.050",
        "train  40/100 steps (40%)  4.0 steps/s  15 s left  loss 0.025",
        "train  60/100 steps (60%)  4.0 steps/s  10 s left  loss 0.017",
        "train  80/100 steps (80%)  4.0 steps/s  5 s left  loss 0.013",
        "train  100/100 steps (100%)  4.0 steps/s  25.0 s  loss 0.010",
    ]


SLOWER_LATER = [
    "train  50/100 steps (20%)  5.0 steps/s  40 s left",
    "train  60/100 steps (40%)  1.0 steps/s  30 s left",
    "train  100/100 steps (100%)  3.3 steps/s  30.0 s",
]
RESUMED = [
    "train  50/100 steps (50%)  1.0 steps/s  50 s left",
    "train  60/100 steps (60%)  1.0 steps/s  40 s left",
    "train  100/100 steps (100%)  2.0 steps/s  30.0 s",
]


@pytest.mark.parametrize(
    ("first", "begin", "fractions", "lines"),
    [(0, 0.0, (0.2, 0.4, 1.0), SLOWER_LATER), (40, 0.4, (None, None, None), RESUMED)],
    ids=["the rate is recent and the time left follows the fraction", "resumed work does not count earlier units"],
)
def test_rate_and_time_left(now: SimpleNamespace, first: int, begin: float, fractions: tuple, lines: list[str]) -> None:
    stream = io.StringIO()
    with progress("train", 100, "steps", stream, first=first, begin=begin) as display:
        for done, fraction in zip((50, 60, 100), fractions, strict=True):
            now.seconds += 10
            display.update(done, fraction)
    assert stream.getvalue().splitlines() == lines


def test_short_work_prints_only_its_end_and_once(now: SimpleNamespace) -> None:
    stream = io.StringIO()
    with progress("write", 3, "files", stream) as display:
        for done in (1, 2, 3, 3):
            now.seconds += 1
            display.update(done)
    assert stream.getvalue() == "write  3/3 files (100%)  1.0 files/s  3.0 s\n"


def test_no_work_in_no_time(now: SimpleNamespace) -> None:
    stream = io.StringIO()
    with progress("nothing", 0, "", stream) as display:
        display.update(0)
    assert stream.getvalue() == "nothing  0/0 (100%)  0.0 /s  0.0 s\n"


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_terminal_shows_a_bar_unless_it_is_dumb(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLUMNS", "100")
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as stream, progress("train", 8, "steps", stream) as display:
        for done in range(1, 9):
            display.update(done, loss=f"{done}.5")
    output = b""
    with contextlib.suppress(OSError):  # EIO: all is read, and the other end is closed
        while chunk := os.read(master, 1 << 16):  # a terminal returns at most 4 KB at a time
            output += chunk
    os.close(master)
    shown = output.decode()
    for text in ("train", "100%", "steps/s", "loss 8.5"):
        assert text in shown
    if term == "dumb":
        assert "\x1b" not in shown
    else:
        assert "━━━━" in shown
        assert "\x1b[?25h" in shown  # the cursor is visible again
