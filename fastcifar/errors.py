"""The errors a user may see: what was wrong, the value, what to do."""

import reprlib

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80


class UserError(ValueError):
    """Something the user can mend: a bad path, a bad value, a damaged file. The commands print it and exit with 2."""


class RunFailedError(RuntimeError):
    """A run that started well and could not be finished: NaN, a full disk. The commands print it and exit with 1."""


class InterruptedRunError(RuntimeError):
    """A run that a signal stopped, after its checkpoint was written. The commands exit with 128 + its number."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def shown(value: object) -> str:
    """A value from a file as an error may show it: short, however long, deep or large it is."""
    try:
        return _short.repr(value)
    except ValueError:  # Python does not write out whole numbers of thousands of digits
        return "a whole number of thousands of digits"
