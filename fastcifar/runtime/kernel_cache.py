"""On-disk caches of compiled code, which save seconds of compilation; a broken cache is never an error.

Both lie where numba decides: the folder NUMBA_CACHE_DIR, else `__pycache__`, else the user's cache folder.
"""

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numba

from fastcifar.files import write_text


def source_digest(*modules: ModuleType | Path) -> str:
    """SHA-256 of the sources of modules, for a kernel's cache key: numba misses edits of what a kernel inlines.

    A module that need not be imported can be given as its path.
    """
    paths = [module if isinstance(module, Path) else Path(module.__file__ or "") for module in modules]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def compiled(function: Callable[..., None], **options: Any) -> Callable[..., None]:
    """`numba.njit(function, **options)`, cached on disk if possible.

    numba itself raises without a writable folder, and at the first call on a full disk or with a damaged cache. This
    function compiles without the cache instead.
    """
    try:
        dispatcher: Any = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no writable folder
        return numba.njit(**options)(function)
    cache = dispatcher._cache
    load, save = cache.load_overload, cache.save_overload

    def load_or_compile(*arguments: Any) -> Any:
        try:
            return load(*arguments)
        except Exception:  # noqa: BLE001  (unpickling a damaged file can raise anything)
            with contextlib.suppress(Exception):
                cache.flush()  # or the damaged file would stay
            return None

    def save_if_possible(*arguments: Any) -> None:
        with contextlib.suppress(Exception):
            save(*arguments)

    cache.load_overload, cache.save_overload = load_or_compile, save_if_possible
    return dispatcher


def cached_text(name: str, key: str, make: Callable[[], str]) -> str:
    """The text `make()`, cached in a file `name` if possible.

    `key` is everything that the text depends on. A file that was made with another key, or is damaged, is replaced.
    `make` is a function of a module's file: that file's place decides on the folder.
    """
    try:
        path = Path(numba.njit(cache=True)(make).stats.cache_path or "") / name
    except RuntimeError:  # no writable folder
        return make()

    def digest(text: str) -> str:
        return hashlib.sha256(f"{key}\n{text}".encode()).hexdigest()

    with contextlib.suppress(OSError, UnicodeDecodeError):
        found, _, text = path.read_text("utf-8").partition("\n")
        if found == digest(text):
            return text
    text = make()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, f"{digest(text)}\n{text}")
    return text
