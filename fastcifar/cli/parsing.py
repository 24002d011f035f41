"""Parses arguments into dataclasses with tyro; mistakes become one-line UserErrors."""

import contextlib
import io
import re
from typing import Any, TypeVar

import tyro

from fastcifar.errors import UserError

T = TypeVar("T")
LONGEST = 600  # characters of an explanation, which may repeat a value from a file
BOX = "╭╮╰╯│─ "  # frame of tyro's messages where the output is UTF-8; elsewhere it consists of hyphens


def parse(kind: type[T], arguments: list[str], *, prog: str, **options: Any) -> T:
    """Returns an instance of the dataclass `kind`. `options` are passed to `tyro.cli`.

    Raises UserError for an unknown flag, a missing value or a value that is refused. `--help` prints and exits with 0.
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
    """The first paragraph of tyro's message, without its frame and the help text below."""
    lines: list[str] = []
    for line in boxed.splitlines()[1:]:
        text = line.strip(BOX)
        if text.strip("-"):
            lines.append(text)
        elif lines:
            break
    text = " ".join(lines).rstrip(".") or "the arguments cannot be used"
    text = re.sub(r"^Error parsing [A-Z]\w*: ", "", text)  # the name of a dataclass tells the user nothing
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
