"""Arguments to dataclasses by tyro, its explanations of a mistake cut to one line."""

import contextlib
import io
from typing import Any, TypeVar

import tyro

from fastcifar.errors import UserError

T = TypeVar("T")
LONGEST = 600  # characters of an explanation, which may repeat a value from a file
BOX = "╭╮╰╯│─ "  # around the text, where the output is UTF-8; elsewhere tyro draws lines of hyphens


def parse(kind: type[T], arguments: list[str], *, prog: str, **options: Any) -> T:
    """An instance of the dataclass `kind`; UserError for an unknown flag, a missing or a refused value.

    `options` are tyro.cli's. --help prints and ends the process with 0.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(kind, args=arguments, prog=prog, **options)
    except SystemExit as end:
        if not end.code:
            raise
        raise UserError(f"{_explanation(printed.getvalue())}; see `{prog} --help`") from None


def _explanation(boxed: str) -> str:
    """The first paragraph of tyro's box: what is wrong, without the frame and the help behind it."""
    lines: list[str] = []
    for line in boxed.splitlines()[1:]:
        text = line.strip(BOX)
        if text.strip("-"):
            lines.append(text)
        elif lines:
            break
    text = " ".join(lines).rstrip(".") or "the arguments cannot be used"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
