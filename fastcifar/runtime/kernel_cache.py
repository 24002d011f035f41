"""numba's on-disk cache of compiled code, which saves seconds of compilation; a broken cache is never an error."""

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numba


def source_digest(*modules: ModuleType) -> str:
    """SHA-256 of the modules' sources, for a kernel's cache key: numba misses edits of what a kernel inlines."""
    return hashlib.sha256(b"".join(Path(module.__file__ or "").read_bytes() for module in modules)).hexdigest()


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
