"""Arguments to dataclasses: a mistake is one line, whatever the encoding of the output."""

import io
import sys
from dataclasses import dataclass
from typing import Literal

import pytest

from fastcifar.cli.parsing import parse
from fastcifar.config.components import require
from fastcifar.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Options:
    """An example."""

    size: int = 3
    """In pixels."""
    crop_pixels: int = 0
    """Pixels to cut off."""
    mode: Literal["mirrored", "plain"] = "plain"
    """How to draw."""

    def __post_init__(self) -> None:
        require(self.size > 0, f"size is {self.size}, but must be above 0")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--size", "x"], "--size: invalid literal for int() with base 10: 'x'"),
        (["--size", "-1"], "size is -1"),
        (["--size"], "--size"),
        (["--sizes", "3"], "--sizes, 3"),
        (["--size", "\n"], "--size: invalid literal for int() with base 10: '\\n'"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], shown: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))  # decides how tyro draws
    with pytest.raises(UserError) as caught:
        parse(Options, arguments, prog="program")
    text = str(caught.value)
    assert shown in text
    assert text.endswith("; see `program --help`")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("arguments", "similar"),
    [
        (["--sizes", "3"], "--size?"),
        (["-size=3"], "--size?"),
        (["--crop_pixel", "3", "--sice", "4"], "--crop-pixels and --size?"),
        (["--mode", "Miror"], "'mirrored'?"),
        (["--level", "3"], "--model.level?"),
        (["--verbos"], "--verbose?"),
        (["--nothing-like-it"], None),
        (["--mode", "dotted"], None),
        (["stray"], None),
    ],
)
def test_the_nearest_flag_or_choice_is_named(arguments: list[str], similar: str | None) -> None:
    about = "--verbose           a flag that the command takes out of the arguments itself\n--model.level INT   another"
    with pytest.raises(UserError) as caught:
        parse(Options, arguments, prog="program", description=about)
    text = str(caught.value)
    assert arguments[-1] in text
    assert ("did you mean" in text) == (similar is not None)
    if similar is not None:
        assert f"did you mean {similar}" in text


def test_valid_arguments_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(Options, ["--size=7"], prog="program") == Options(size=7)
    assert parse(Options, [], prog="program") == Options()
    with pytest.raises(SystemExit) as caught:
        parse(Options, ["--help"], prog="program")
    assert caught.value.code == 0
    shown = capsys.readouterr()
    assert "usage: program [-h]" in shown.out
    assert "--size INT" in shown.out
    assert "In pixels." in shown.out
    assert shown.err == ""
