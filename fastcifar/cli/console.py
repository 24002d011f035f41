"""Runs a command: prints its error as one line on standard error and sets the exit code."""

import os
import sys
import traceback
from collections.abc import Callable

from fastcifar.errors import InterruptedRunError, RunFailedError, UserError

EXIT_FAILED, EXIT_USER, EXIT_INTERRUPTED = 1, 2, 130


def run_command(main: Callable[[list[str]], None]) -> None:
    """Calls `main` with the process's arguments and ends the process on an error.

    The exit code is 2 for UserError, 1 for a failed run and for unexpected errors, 128 + signal for a run that a signal
    stopped, 130 for Ctrl-C. With `--debug` among the arguments, the traceback is printed above the error line.
    """
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        main([argument for argument in arguments if argument != "--debug"])
    except SystemExit:
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at exit
        sys.exit(EXIT_FAILED)
    except BaseException as error:  # noqa: BLE001  (KeyboardInterrupt is reported as well)
        if debug:
            traceback.print_exc()
        message, code = _explain(error)
        print(message, file=sys.stderr)
        sys.exit(code)


def _explain(error: BaseException) -> tuple[str, int]:
    """The error line and the exit code."""
    text = _printable_line(str(error)) or type(error).__name__
    match error:
        case UserError():
            return f"error: {text}", EXIT_USER
        case RunFailedError() | OSError():
            return f"failed: {text}", EXIT_FAILED
        case InterruptedRunError():
            return text, 128 + error.signal
        case KeyboardInterrupt():
            return "interrupted", EXIT_INTERRUPTED
    return f"failed: unexpected {type(error).__name__}: {text} (--debug shows where; please report it)", EXIT_FAILED


def _printable_line(text: str) -> str:
    """`text` in one line, control characters escaped: it may repeat file names from an archive."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text.replace("\n", " "))
