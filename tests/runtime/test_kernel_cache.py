"""The cache of compiled kernels: used where it is sound, and never a reason to fail where it is not."""

import errno
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba.core import caching

from fastcifar.runtime.kernel_cache import compiled

SOURCE = """
def double(values):
    for i in range(len(values)):
        values[i] *= 2
"""


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """The same function, compiled anew, with a cache of its own on disk."""
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "kernels.py"
    path.write_text(SOURCE)

    def make() -> Any:
        spec = importlib.util.spec_from_file_location("kernels", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return compiled(module.double, nogil=True)

    return make


def check(function: Any) -> int:
    """Runs it; returns how often the cache had it."""
    values = np.arange(4)
    function(values)
    assert values.tolist() == [0, 2, 4, 6]
    return sum(function.stats.cache_hits.values())


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.nb?"))


def test_it_is_compiled_once(double: Callable[[], Any], tmp_path: Path):
    assert [check(double()) for _ in range(2)] == [0, 1]
    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize("damage", [b"", b"\x80\x04K", b"nonsense", b"cno_module\nno_name\n."])
@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
def test_a_damaged_cache_is_replaced(damage: bytes, suffix: str, double: Callable[[], Any], tmp_path: Path):
    check(double())
    next(path for path in files(tmp_path) if path.suffix == suffix).write_bytes(damage)
    assert [check(double()) for _ in range(2)] == [0, 1]


@pytest.mark.parametrize("step", ["_save_data", "_save_index"])
def test_a_full_disk_is_no_reason_to_fail(step: str, double: Callable[[], Any], monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, step, full)
    assert [check(double()) for _ in range(2)] == [0, 0]


def test_without_a_folder_it_is_compiled_every_time():
    names: dict[str, Any] = {}
    exec(SOURCE, names)  # of no file, so numba knows no place for it
    assert check(compiled(names["double"], nogil=True)) == 0
