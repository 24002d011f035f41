"""The on-disk cache of compiled kernels: used if it is sound, and never an error if it is not."""

import errno
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba.core import caching

from fastcifar.runtime import kernel_cache
from fastcifar.runtime.kernel_cache import cached_text, compiled

SOURCE = """
def double(values):
    for i in range(len(values)):
        values[i] *= 2
"""


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Each call returns a new dispatcher of the same function; they share an empty on-disk cache."""
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "kernels.py"
    path.write_text(SOURCE)

    def make() -> Any:
        spec: Any = importlib.util.spec_from_file_location("kernels", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return compiled(module.double, nogil=True)

    return make


def cache_hits(function: Any) -> int:
    """Calls the function, checks its result, and returns how often the cache had it."""
    values = np.arange(4)
    function(values)
    assert values.tolist() == [0, 2, 4, 6]
    return sum(function.stats.cache_hits.values())


def test_a_function_is_compiled_once(double: Callable[[], Any], tmp_path: Path):
    assert [cache_hits(double()) for _ in range(2)] == [0, 1]
    assert len(list(tmp_path.rglob("*.nb?"))) == 2


@pytest.mark.parametrize("damage", [b"", b"\x80\x04K", b"cno_module\nno_name\n."])
@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_a_damaged_cache_is_replaced(damage: bytes, suffix: str, double: Callable[[], Any], tmp_path: Path):
    cache_hits(double())
    next(tmp_path.rglob(f"*.{suffix}")).write_bytes(damage)
    assert [cache_hits(double()) for _ in range(2)] == [0, 1]


@pytest.mark.parametrize("step", ["_save_data", "_save_index"])
def test_a_full_disk_is_no_error(step: str, double: Callable[[], Any], monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, step, full)
    assert [cache_hits(double()) for _ in range(2)] == [0, 0]


def test_a_function_without_a_file_is_compiled_every_time():
    names: dict[str, Any] = {}
    exec(SOURCE, names)  # has no file, so numba has no folder for its cache
    assert cache_hits(compiled(names["double"], nogil=True)) == 0


class Text:
    """A text that is cached in `folder`; counts how often it was made."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, 0

    def make(self) -> str:
        self.made += 1
        return f"text ä\n{self.made}\n"

    def cached(self, key: str = "key") -> str:
        return cached_text("name.txt", key, lambda: self.make())

    @property
    def file(self) -> Path:
        return next(self.folder.rglob("name.txt"))


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Text:
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path))
    return Text(tmp_path)


def test_a_text_is_made_once(text: Text) -> None:
    assert [text.cached() for _ in range(3)] == ["text ä\n1\n"] * 3
    assert [file.name for file in text.folder.rglob("*") if file.is_file()] == ["name.txt"]


def test_a_text_of_another_key_is_replaced(text: Text) -> None:
    assert [text.cached(key) for key in ("key", "other", "other", "key")] == [f"text ä\n{n}\n" for n in (1, 2, 2, 3)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-3],
        lambda content: content[:70],
        lambda content: b"",
        lambda content: b"\xff" + content,
        lambda content: content.replace(b"text", b"test"),
        lambda content: content + b"\n",
    ],
)
def test_a_damaged_text_is_replaced(damage: Callable[[bytes], bytes], text: Text) -> None:
    text.cached()
    text.file.write_bytes(damage(text.file.read_bytes()))
    assert [text.cached() for _ in range(2)] == ["text ä\n2\n"] * 2


def test_a_text_is_made_every_time_if_it_cannot_be_read_or_written(text: Text) -> None:
    text.cached()
    text.file.unlink()
    (next(text.folder.iterdir()) / "name.txt").mkdir()
    assert [text.cached() for _ in range(2)] == ["text ä\n2\n", "text ä\n3\n"]


def test_a_text_needs_no_writable_folder(text: Text, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    assert [text.cached() for _ in range(2)] == ["text ä\n1\n", "text ä\n2\n"]


def test_a_full_disk_is_no_error_for_a_text(text: Text, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(kernel_cache, "write_text", full)
    assert [text.cached() for _ in range(2)] == ["text ä\n1\n", "text ä\n2\n"]
