"""Arguments to dataclasses: what is wrong with them, in one line, however the explanation was drawn."""

import io
import sys
from dataclasses import dataclass

import pytest

from fastcifar.cli.parsing import parse
from fastcifar.config.components import require
from fastcifar.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Options:
    """An example."""

    size: int = 3
    """In pixels."""

    def __post_init__(self) -> None:
        require(self.size > 0, f"size is {self.size}, but must be above 0")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--size", "x"], "Error parsing --size: invalid literal for int() with base 10: 'x'; see `program --help`"),
        (["--size", "-1"], "Error parsing Options: size is -1, but must be above 0; see `program --help`"),
        (["--size"], "Missing value for argument '--size'. Expected 1 values; see `program --help`"),
        (["--sizes", "3"], "Unrecognized options: --sizes, 3; see `program --help`"),
        (["--size", "\n"], "Error parsing --size: invalid literal for int() with base 10: '\\n'; see `program --help`"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], text: str, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))  # decides how tyro draws
    with pytest.raises(UserError) as caught:
        parse(Options, arguments, prog="program")
    assert str(caught.value) == text


def test_arguments() -> None:
    assert parse(Options, ["--size=7"], prog="program") == Options(size=7)
    assert parse(Options, [], prog="program") == Options()


def test_help_ends_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(Options, ["--help"], prog="program")
    assert caught.value.code == 0
    shown = capsys.readouterr()
    assert "usage: program [-h] [--size INT]" in shown.out
    assert "In pixels." in shown.out
    assert shown.err == ""
