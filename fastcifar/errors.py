"""The errors a user may see. Each message says what is wrong, names the value and says what to do."""

import difflib
import reprlib
import struct
from collections.abc import Iterable

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


def choose_one(value: object, choices: Iterable[str]) -> str:
    """Advice on a value that is none of `choices`: the nearest one if there is one, and all of them."""
    names = list(choices)
    near = difflib.get_close_matches(str(value), names, n=1)
    return "".join(f"did you mean {name!r}? " for name in near) + f"choose one of {', '.join(names)}"


def shown(value: object) -> str:
    """A value from a file for an error message: shortened, however long or deeply nested it is."""
    try:
        return _short.repr(value)
    except ValueError:  # Python refuses to convert integers of more than 4300 digits
        return "an integer of thousands of digits"


def reason(error: BaseException) -> str:
    """The message of an exception on one line, or its class name if it has none."""
    return " ".join(str(error).split()) or type(error).__name__
