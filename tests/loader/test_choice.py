"""Which loader `auto` takes."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from fastcifar.errors import UserError
from fastcifar.loader import choice
from fastcifar.loader.choice import choose_loader, free_bytes

CPU = torch.device("cpu")
NEEDED = (1003 + 97) * 3080  # bytes of the prepared noise


@pytest.mark.parametrize(
    ("free", "kind"), [(2 * NEEDED, "resident"), (2 * NEEDED - 1, "stream"), (math.inf, "resident")]
)
def test_auto_is_resident_where_half_of_the_free_memory_is_enough(
    prepared: Any, monkeypatch: pytest.MonkeyPatch, free: float, kind: str
) -> None:
    monkeypatch.setattr(choice, "free_bytes", lambda device: free)
    found = choose_loader("auto", prepared.folder, CPU)
    assert found.kind == kind
    if kind == "stream":
        assert found.reason == "the data set of 3 MB does not fit in half of the 7 MB that are free"


def test_a_named_loader_stays_and_needs_no_reason(tmp_path: Path) -> None:
    assert choose_loader("stream", tmp_path, CPU) == ("stream", "")
    assert choose_loader("resident", tmp_path, CPU) == ("resident", "")
    with pytest.raises(UserError, match="prepare"):
        choose_loader("auto", tmp_path, CPU)


def test_free_memory_is_that_of_the_host_and_of_its_container(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    assert free_bytes(CPU, meminfo, tmp_path) == math.inf
    meminfo.write_text("MemTotal:  900 kB\nMemFree:  100 kB\nMemAvailable:  500 kB\n")
    assert free_bytes(CPU, meminfo, tmp_path) == 500 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(CPU, meminfo, tmp_path) == 500 * 1024
    (tmp_path / "memory.max").write_text("4096\n")
    assert free_bytes(CPU, meminfo, tmp_path) == 4096
    assert free_bytes(CPU) > 10**6
