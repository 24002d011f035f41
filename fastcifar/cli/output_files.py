"""Files that a command writes under a name of its own choice."""

from collections.abc import Callable
from pathlib import Path

from fastcifar.errors import UserError


def make_folder(folder: Path) -> None:
    """Makes the folder of `--out` where it is missing; raises UserError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}; choose another --out") from None


def written(path: Path, write: Callable[[Path], object]) -> str:
    """Calls `write(path)`. Returns the path for the command's output, with a note if it replaced a file."""
    note = " (replaced)" if path.exists() else ""
    write(path)
    return f"{path}{note}"
