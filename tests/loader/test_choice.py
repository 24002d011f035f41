"""Which loader `auto` chooses."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from fastcifar.errors import UserError
from fastcifar.loader import choice
from fastcifar.loader.choice import choose_loader, free_bytes

CPU = torch.device("cpu")
NEEDED = (1003 + 97) * 3080  # bytes of the data set


@pytest.mark.parametrize(
    ("free", "kind"), [(2 * NEEDED, "resident"), (2 * NEEDED - 1, "stream"), (math.inf, "resident")]
)
def test_auto_is_resident_if_the_data_fits_in_half_of_the_free_memory(
    prepared: Any, monkeypatch: pytest.MonkeyPatch, free: float, kind: str
) -> None:
    monkeypatch.setattr(choice, "free_bytes", lambda device: free)
    found, reason = choose_loader("auto", prepared.folder, CPU)
    assert found == kind
    assert "3 MB" in reason


def test_a_named_loader_is_not_replaced(tmp_path: Path) -> None:
    assert choose_loader("stream", tmp_path, CPU) == ("stream", "")
    assert choose_loader("resident", tmp_path, CPU) == ("resident", "")
    with pytest.raises(UserError, match="prepare"):
        choose_loader("auto", tmp_path, CPU)


def test_free_memory_is_limited_by_the_host_and_the_container(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    assert free_bytes(CPU, meminfo, tmp_path) == math.inf
    meminfo.write_text("MemTotal:  900 kB\nMemFree:  100 kB\nMemAvailable:  500 kB\n")
    assert free_bytes(CPU, meminfo, tmp_path) == 500 * 1024
    for limit, free in (("max", 500 * 1024), ("4096", 4096)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        assert free_bytes(CPU, meminfo, tmp_path) == free
    assert free_bytes(CPU) > 0
