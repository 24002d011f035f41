"""What can go wrong on the machine while a run is under way, as errors that say how to go on."""

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from fastcifar.errors import RunFailedError

OUT_OF_MEMORY = re.compile("out of memory|allocate memory", re.IGNORECASE)


def how_to_resume(folder: Path) -> str:
    """The command that goes on with a run."""
    return f"fastcifar train --resume {shlex.quote(str(folder))}"


@contextlib.contextmanager
def explained(batch_size: int, folder: Path) -> Iterator[None]:
    """Failures of the machine that a run can meet, as RunFailedError that says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunFailedError(f"{folder}: {reason}; mend that and go on with {how_to_resume(folder)}") from error
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not OUT_OF_MEMORY.search(str(error)):
            raise
        smaller = f"--batch-size {batch_size // 2}" if batch_size > 1 else "a smaller network"
        raise RunFailedError(f"out of memory with batch_size {batch_size}; try {smaller}") from error
