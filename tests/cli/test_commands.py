"""The list of commands, their help, unknown flags, and `fastcifar doctor`."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastcifar import __version__
from fastcifar.__main__ import COMMANDS
from fastcifar.cli.doctor import gpu_lines

Command = Callable[..., Any]


def test_the_list_of_commands(tmp_path: Path, command: Command) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "fastcifar"], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("usage: fastcifar COMMAND")
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(COMMANDS)
    assert command("--help").out == command("-h").out == result.stdout
    assert command("--version").out == f"fastcifar {__version__}\n"


def test_an_unknown_command(command: Command) -> None:
    refused = command("tarin", "--recipe", "smoke").refused()
    assert "'tarin'" in refused
    assert "did you mean 'train'?" in refused
    assert all(name in refused for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_refuses_unknown_flags(name: str, command: Command) -> None:
    done = command(name, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"usage: fastcifar {name} [-h]")
    assert "--no-such-flag" in command(name, "--no-such-flag").refused()


def test_doctor(tmp_path: Path, small_data: Path, command: Command) -> None:
    done = command("doctor", tmp_path)
    assert (done.code, done.err) == (0, "")
    facts = {name: value.strip() for name, _, value in (line.partition(":") for line in done.out.splitlines())}
    assert {"fastcifar", "python", "torch", "numba", "ffcv", "cpu", "gpu", "device", "amp", "threads"} <= set(facts)
    assert all(facts.values())
    assert facts["ffcv import"] == "works"
    assert facts["cpu kernel"].startswith("equal")
    assert facts["data"].startswith("none")
    assert str(tmp_path) in facts["data"]
    data = command("doctor", small_data).out.splitlines()[-1]
    assert f"synthetic in {small_data}, 600 train + 200 test images" in data


def test_doctor_shows_every_gpu(fake_gpus: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    gib = 2**30
    fake_gpus({"free": 70 * gib, "total": 80 * gib}, {"name": "Tesla P100", "capability": (6, 0), "total": 16 * gib})
    first, second = gpu_lines()
    assert [part in first for part in ("cuda:0", "NVIDIA H100", "9.0", "70.0", "80.0")] == [True] * 5
    assert [part in second for part in ("cuda:1", "Tesla P100", "6.0", "16.0")] == [True] * 4

    def busy(device: object) -> None:
        raise RuntimeError("CUDA error: busy or unavailable\nmore")

    monkeypatch.setattr("torch.cuda.mem_get_info", busy)
    assert ["busy or unavailable more" in line for line in gpu_lines()] == [True, True]
    fake_gpus()
    assert len(gpu_lines()) == 1
