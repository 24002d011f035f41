"""Errors of a command: one line on standard error and an exit code."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from fastcifar.cli.console import run_command
from fastcifar.errors import InterruptedRunError, RunFailedError, UserError


def raising(error: BaseException) -> Callable[[list[str]], None]:
    def main(arguments: list[str]) -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "begin", "shown"),
    [
        (UserError("epochs is 0"), 2, "error: ", "epochs is 0"),
        (UserError("two\nlines"), 2, "error: ", "two lines"),
        (UserError("caf\u00e9 \x1b[2J \r"), 2, "error: ", "caf\u00e9 \\x1b[2J \\r"),
        (RunFailedError("the loss is nan"), 1, "failed: ", "the loss is nan"),
        (InterruptedRunError("stopped", 15), 143, "stopped", ""),
        (KeyboardInterrupt(), 130, "interrupted", ""),
        (OSError(28, "No space left on device"), 1, "failed: ", "No space left on device"),
        (ZeroDivisionError("by zero"), 1, "failed: ", "ZeroDivisionError: by zero"),
        (MemoryError(), 1, "failed: ", "MemoryError"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    error: BaseException,
    code: int,
    begin: str,
    shown: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["x"])
    with pytest.raises(SystemExit) as caught:
        run_command(raising(error))
    assert caught.value.code == code
    out, line = capsys.readouterr()
    assert (out, line.count("\n")) == ("", 1)
    assert line.startswith(begin)
    assert shown in line
    monkeypatch.setattr(sys, "argv", ["x", "--debug"])
    with pytest.raises(SystemExit):
        run_command(raising(error))
    traced = capsys.readouterr().err
    assert traced.startswith("Traceback (most recent call last):")
    assert traced.endswith(line)


def test_debug_is_not_passed_to_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(sys, "argv", ["x", "a", "--debug", "b"])
    run_command(seen.extend)
    assert seen == ["a", "b"]


def test_an_exit_code_of_the_command_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x"])
    with pytest.raises(SystemExit) as caught:
        run_command(raising(SystemExit(7)))
    assert caught.value.code == 7


def test_a_closed_pipe_gives_no_traceback() -> None:
    code = (
        "from fastcifar.cli.console import run_command\n"
        "run_command(lambda arguments: [print('x' * 1000, flush=True) for _ in range(10_000)])"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1
