"""The two errors a user may see: what was wrong, the value, what to do."""


class UserError(ValueError):
    """Something the user can mend: a bad path, a bad value, a damaged file. The commands print it and exit with 2."""


class RunFailedError(RuntimeError):
    """A run that started well and could not be finished: NaN, a full disk. The commands print it and exit with 1."""
