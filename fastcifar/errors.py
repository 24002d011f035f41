"""The errors a user may see. Each message says what is wrong, names the value and says what to do."""

import reprlib
import struct
from collections.abc import Iterable
from difflib import get_close_matches

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80

# What the parsers of Python, NumPy and Pillow raise for malformed files, besides their own exception classes.
MALFORMED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)


class UserError(ValueError):
    """Something the user can fix: a bad path, a bad value, a damaged file. The commands print it and exit with 2."""


class RunFailedError(RuntimeError):
    """A correct request that failed on the way: NaN loss, a full disk. The commands print it and exit with 1."""


class InterruptedRunError(RuntimeError):
    """A signal stopped the run after its checkpoint was written. The commands exit with 128 + the signal's number."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def shown(value: object) -> str:
    """A value from a file for an error message: shortened, however long or deeply nested it is."""
    try:
        return _short.repr(value)
    except ValueError:  # Python refuses to convert integers of more than 4300 digits
        return "an integer of thousands of digits"


def nearest(value: str, choices: Iterable[str]) -> str:
    """The choice most like `value`, upper and lower case being the same; empty if none is like it."""
    names = {choice.lower(): choice for choice in choices}
    return next((names[near] for near in get_close_matches(value.lower(), names, n=1)), "")


def choose_one(value: object, choices: Iterable[str]) -> str:
    """The end of the message about a `value` that is no choice: the nearest choice if there is one, and all choices."""
    names = list(choices)
    near = nearest(value, names) if isinstance(value, str) else ""
    return f"{f'did you mean {near!r}? ' if near else ''}choose one of {', '.join(names)}"


def reason(error: BaseException) -> str:
    """The message of an exception on one line, or its class name if it has none."""
    return " ".join(str(error).split()) or type(error).__name__
