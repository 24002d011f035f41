"""Failures of the machine during a run, as errors that say what to do."""

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from fastcifar.errors import RunFailedError

OUT_OF_MEMORY = re.compile("out of memory|allocate memory", re.IGNORECASE)


def resume_command(folder: Path) -> str:
    """The command that resumes the run in `folder`."""
    return f"fastcifar train --resume {shlex.quote(str(folder))}"


@contextlib.contextmanager
def translate_failures(batch_size: int, folder: Path) -> Iterator[None]:
    """Turns I/O errors and lack of memory into RunFailedError with advice; other errors pass."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunFailedError(f"{folder}: {reason}; fix this, then resume with {resume_command(folder)}") from error
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not OUT_OF_MEMORY.search(str(error)):
            raise
        smaller = f"--batch-size {batch_size // 2}" if batch_size > 1 else "a smaller network"
        raise RunFailedError(f"out of memory with batch_size {batch_size}; try {smaller}") from error
