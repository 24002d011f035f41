"""What the commands print: errors as one line, and an exit code."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from fastcifar.cli.console import run_command
from fastcifar.errors import RunFailedError, UserError


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
