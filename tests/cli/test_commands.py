"""`python -m fastcifar`: the list of commands, and what all of them do alike."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastcifar import __version__
from fastcifar.__main__ import COMMANDS

Command = Callable[..., Any]


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=120, cwd=cwd)


def test_the_list_of_commands(tmp_path: Path, command: Command) -> None:
    result = python("fastcifar", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "usage: python -m fastcifar COMMAND [--help]"
    assert [line.split()[0] for line in lines[2:]] == list(COMMANDS)
    assert command("--help").out == command("-h").out == result.stdout


def test_version(command: Command) -> None:
    assert command("--version").out == f"fastcifar {__version__}\n"


def test_an_unknown_command(command: Command) -> None:
    expected = f"no command is called 'tarin': choose one of {', '.join(COMMANDS)}"
    assert command("tarin", "--recipe", "smoke").refused() == expected


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "doctor"])
def test_every_command_explains_itself(name: str, command: Command) -> None:
    done = command(name, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"usage: python -m fastcifar.{name} [-h]")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_refuses_unknown_flags(name: str, command: Command) -> None:
    assert "--no-such-flag" in command(name, "--no-such-flag").refused()


def test_a_command_by_its_own_name_ends_as_the_dispatched_one(tmp_path: Path, command: Command) -> None:
    result = python("fastcifar.cli.evaluate", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr == ("error: there is no finished run in runs; train one with `python -m fastcifar.train`\n")
    assert f"error: {command('evaluate', '--runs', tmp_path / 'runs').refused()}\n" == result.stderr.replace(
        " runs;", f" {tmp_path / 'runs'};"
    )


def test_doctor_without_data(tmp_path: Path, command: Command) -> None:
    done = command("doctor", tmp_path)
    assert (done.code, done.err) == (0, "")
    facts = dict(line.split(":", 1) for line in done.out.splitlines())
    assert list(facts) == [
        "fastcifar",
        "python",
        "system",
        "torch",
        "torchvision",
        "numpy",
        "numba",
        "numba-cuda",
        "ffcv",
        "cpu",
        "gpu",
        "device",
        "amp",
        "layers",
        "threads",
        "recipe",
        "ffcv import",
        "cpu kernel",
        "cuda kernel",
        "data",
    ]
    assert all(value.strip() for value in facts.values())
    assert facts["ffcv import"].strip() == "works"
    assert facts["cpu kernel"].strip() == "equal to the reference"
    assert facts["data"].strip().startswith(f"none: no prepared data in {tmp_path}")


def test_doctor_with_data(small_data: Path, command: Command) -> None:
    done = command("doctor", small_data)
    assert f"data:         synthetic in {small_data}, 600 train + 200 test images, content " in done.out


def test_doctor_s_arguments(command: Command, tmp_path: Path) -> None:
    assert command("doctor", "a", "b").refused() == "doctor takes one folder of prepared data at most, got a b"
    assert command("doctor", "--verbose").refused() == (
        "doctor takes one folder of prepared data at most, got --verbose"
    )
    assert command("doctor", "--help").out.startswith("usage: fastcifar doctor [DATA]\n")
