"""Half-read epochs and loaders by the hundred leave no thread, no open file and no memory behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

GROWTH_MIB = 2.0  # of 50 lifetimes and more, once memory has settled; it grows in steps of 0.9, if at all


def check(epochs: int, loaders: int) -> None:
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("leaks.py")), str(epochs), str(loaders)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for name, rows in [(f"{kind}, {name}", rows) for kind, both in found.items() for name, rows in both.items()]:
        print(f"{name}: {rows[0]} to {rows[-1]}")
        threads, files, memory = zip(*(row[1:] for row in rows), strict=True)
        assert max(threads) == min(threads), name
        assert max(files) == min(files), name
        assert memory[-1] - memory[0] < GROWTH_MIB, (name, memory)


def test_nothing_is_left_behind():
    check(60, 20)


@pytest.mark.slow
def test_a_thousand_half_read_epochs_and_two_hundred_loaders():
    check(1000, 200)
