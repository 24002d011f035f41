"""What the commands print: progress on a terminal and off it, errors as one line and an exit code."""

import contextlib
import io
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from fastcifar.cli import console
from fastcifar.cli.console import run_command
from fastcifar.errors import RunFailedError, UserError
from fastcifar.runtime.progress import progress


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    at = SimpleNamespace(seconds=50.0)
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: at.seconds))
    return at


def test_plain_lines_are_throttled_and_carry_rate_and_time_left(now: SimpleNamespace) -> None:
    stream = io.StringIO()
    with progress("train", 100, "steps", stream) as bar:
        for done in range(1, 101):
            now.seconds += 0.25
            bar.update(done, loss=f"{1 / done:.3f}")
    assert stream.getvalue().splitlines() == [
        "train  20/100 steps (20%)  4.0 steps/s  20 s left  loss 0.050",
        "train  40/100 steps (40%)  4.0 steps/s  15 s left  loss 0.025",
        "train  60/100 steps (60%)  4.0 steps/s  10 s left  loss 0.017",
        "train  80/100 steps (80%)  4.0 steps/s  5 s left  loss 0.013",
        "train  100/100 steps (100%)  4.0 steps/s  25.0 s  loss 0.010",
    ]


def test_the_rate_is_that_of_late_and_the_time_left_follows_the_fraction_of_the_work(now: SimpleNamespace) -> None:
    stream = io.StringIO()
    with progress("train", 100, "steps", stream) as bar:
        for done, fraction in ((50, 0.2), (60, 0.4), (100, 1.0)):
            now.seconds += 10
            bar.update(done, fraction)
    assert stream.getvalue().splitlines() == [
        "train  50/100 steps (20%)  5.0 steps/s  40 s left",
        "train  60/100 steps (40%)  1.0 steps/s  30 s left",
        "train  100/100 steps (100%)  3.3 steps/s  30.0 s",
    ]


def test_work_that_goes_on_does_not_count_what_was_done_before(now: SimpleNamespace) -> None:
    stream = io.StringIO()
    with progress("train", 100, "steps", stream, first=40, begin=0.4) as bar:
        for done in (50, 60, 100):
            now.seconds += 10
            bar.update(done)
    assert stream.getvalue().splitlines() == [
        "train  50/100 steps (50%)  1.0 steps/s  50 s left",
        "train  60/100 steps (60%)  1.0 steps/s  40 s left",
        "train  100/100 steps (100%)  2.0 steps/s  30.0 s",
    ]


def test_short_work_prints_its_end_only_and_once(now: SimpleNamespace) -> None:
    stream = io.StringIO()
    with progress("write", 3, "files", stream) as bar:
        for done in (1, 2, 3, 3):
            now.seconds += 1
            bar.update(done)
    assert stream.getvalue() == "write  3/3 files (100%)  1.0 files/s  3.0 s\n"


def test_no_time_and_no_work(now: SimpleNamespace) -> None:
    stream = io.StringIO()
    with progress("nothing", 0, "", stream) as bar:
        bar.update(0)
    assert stream.getvalue() == "nothing  0/0 (100%)  0.0 /s  0.0 s\n"


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, term: str) -> str:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLUMNS", "100")
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stream, progress("train", 8, "steps", stream) as bar:
        for done in range(1, 9):
            bar.update(done, loss=f"{done}.5")
    shown = b""
    with contextlib.suppress(OSError):  # EIO: all is read, and nobody holds the other end any more
        while chunk := os.read(ours, 1 << 16):  # a terminal hands out 4 KB at a time
            shown += chunk
    os.close(ours)
    return shown.decode()


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = on_a_terminal(monkeypatch, "xterm")
    assert "━━━━" in shown
    assert "train" in shown
    assert "100%" in shown
    assert "steps/s" in shown
    assert "loss 8.5" in shown
    assert "\x1b[?25h" in shown  # the cursor is shown again


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = on_a_terminal(monkeypatch, "dumb")
    assert "\x1b" not in shown
    assert shown.startswith("train  8/8 steps (100%)")


def ends(error: BaseException) -> Callable[[list[str]], None]:
    def main(arguments: list[str]) -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UserError("epochs is 0"), 2, "error: epochs is 0\n"),
        (UserError("two\nlines"), 2, "error: two lines\n"),
        (UserError("caf\u00e9 \x1b[2J \r"), 2, "error: caf\u00e9 \\x1b[2J \\r\n"),
        (RunFailedError("the loss is nan"), 1, "failed: the loss is nan\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (OSError(28, "No space left on device"), 1, "failed: [Errno 28] No space left on device\n"),
        (
            ZeroDivisionError("by zero"),
            1,
            "failed: unexpected ZeroDivisionError: by zero (--debug shows where; please report it)\n",
        ),
        (MemoryError(), 1, "failed: unexpected MemoryError: MemoryError (--debug shows where; please report it)\n"),
    ],
)
def test_errors_are_one_line_and_a_code(
    error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["x"])
    with pytest.raises(SystemExit) as caught:
        run_command(ends(error))
    assert caught.value.code == code
    assert capsys.readouterr() == ("", text)
    monkeypatch.setattr(sys, "argv", ["x", "--debug"])
    with pytest.raises(SystemExit):
        run_command(ends(error))
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):")
    assert shown.endswith(text)


def test_debug_is_not_an_argument_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(sys, "argv", ["x", "a", "--debug", "b"])
    run_command(seen.extend)
    assert seen == ["a", "b"]


def test_an_exit_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x"])
    with pytest.raises(SystemExit) as caught:
        run_command(ends(SystemExit(7)))
    assert caught.value.code == 7


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    code = (
        "from fastcifar.console import run_command\n"
        "run_command(lambda arguments: [print('x' * 1000, flush=True) for _ in range(10_000)])"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1
