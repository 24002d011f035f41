"""Parses arguments into dataclasses with tyro; mistakes become one-line UserErrors."""

import contextlib
import io
import re
from typing import Any, TypeVar

import tyro

from fastcifar.errors import UserError, choose_one, nearest

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
        text = _explanation(printed.getvalue())
        if text.startswith("Unrecognized"):
            text += _similar_flags(arguments, _flags(kind, prog, options))
        raise UserError(f"{text}; see `{prog} --help`") from None


def _flags(kind: type, prog: str, options: dict[str, Any]) -> set[str]:
    """The flags that begin a line of the help text: those of `kind`, and those that only the description explains."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        tyro.cli(kind, args=["--help"], prog=prog, **options)
    rows = (line.strip(BOX) for line in printed.getvalue().splitlines())
    return {flag for row in rows if row.startswith("-") for flag in re.findall(r"--[a-z][\w.-]*", row)}


def _similar_flags(arguments: list[str], flags: set[str]) -> str:
    """A question that names the flags nearest to those of `arguments` that do not exist; may be empty."""
    names = {flag.rpartition(".")[2].lstrip("-"): flag for flag in sorted(flags)}  # --pad for --augment.pad
    names |= {flag.lstrip("-"): flag for flag in flags}
    given = (argument.partition("=")[0].replace("_", "-") for argument in arguments if argument.startswith("-"))
    found = [names.get(nearest(flag.lstrip("-"), names), "") for flag in given if flag not in flags]
    return f" (did you mean {' and '.join(filter(None, found))}?)" if any(found) else ""


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
    if choice := re.fullmatch(r"(invalid choice '(.*)' for argument '.*')\. Expected one of (\(.*\))", text):
        allowed = re.findall(r"'([^']*)'", choice[3])
        text = f"{choice[1]}: {choose_one(choice[2], allowed)}"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
