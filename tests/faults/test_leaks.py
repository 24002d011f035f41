"""Hundreds of half-read epochs and of loaders leak no thread, no open file and no memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

GROWTH_MIB = 2.0  # over 50 lifetimes and more, after the memory has settled; if it grows, it is in steps of 0.9


@pytest.mark.parametrize(("epochs", "loaders"), [(60, 20), pytest.param(1000, 200, marks=pytest.mark.slow)])
def test_half_read_epochs_and_loaders_leak_nothing(epochs: int, loaders: int):
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("leaks.py")), str(epochs), str(loaders)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for name, rows in [(f"{kind}, {name}", rows) for kind, both in found.items() for name, rows in both.items()]:
        threads, files, memory = zip(*(row[1:] for row in rows), strict=True)
        assert max(threads) == min(threads), name
        assert max(files) == min(files), name
        assert memory[-1] - memory[0] < GROWTH_MIB, (name, memory)
