"""How a command ends: errors as one line on standard error, and the exit codes."""

import os
import sys
import traceback
from collections.abc import Callable

from fastcifar.errors import InterruptedRunError, RunFailedError, UserError

EXIT_FAILED, EXIT_USER, EXIT_INTERRUPTED = 1, 2, 130


def run_command(main: Callable[[list[str]], None]) -> None:
    """Runs a command's `main(arguments)` and ends the process: 0, or 2 for the user's mistake, or 1 for a failed run.

    Errors are one line on standard error; `--debug` among the arguments adds the traceback.
    """
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        main(arguments)
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at exit
            sys.exit(EXIT_FAILED)
        if debug:
            traceback.print_exc()
        message, code = _explain(error)
        print(message, file=sys.stderr)
        sys.exit(code)


def _in_a_line(text: str) -> str:
    """`text` without what would break the line or command the terminal: it may repeat names out of an archive."""
    letters = " ".join(text.split("\n"))
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in letters)


def _explain(error: BaseException) -> tuple[str, int]:
    text = _in_a_line(str(error)) or type(error).__name__
    if isinstance(error, UserError):
        return f"error: {text}", EXIT_USER
    if isinstance(error, RunFailedError):
        return f"failed: {text}", EXIT_FAILED
    if isinstance(error, InterruptedRunError):
        return text, 128 + error.signal
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", EXIT_INTERRUPTED
    if isinstance(error, OSError):
        return f"failed: {text}", EXIT_FAILED
    return f"failed: unexpected {type(error).__name__}: {text} (--debug shows where; please report it)", EXIT_FAILED
