"""numba's cache of compiled code on disk: used where it helps, never a reason to fail, as compiling takes seconds."""

import contextlib
from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., None], **options: Any) -> Callable[..., None]:
    """`numba.njit(function, **options)`, cached on disk where that can be done.

    Without a folder that can be written, numba refuses; with a full disk or a damaged cache it raises in the first
    call. Here the function is compiled instead.
    """
    try:
        dispatcher: Any = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder to cache in can be written
        return numba.njit(**options)(function)
    cache = dispatcher._cache
    load, save = cache.load_overload, cache.save_overload

    def load_or_compile(*arguments: Any) -> Any:
        try:
            return load(*arguments)
        except Exception:  # noqa: BLE001  (unpickling a damaged file can raise anything)
            with contextlib.suppress(Exception):
                cache.flush()  # or it would stay damaged
            return None

    def save_if_possible(*arguments: Any) -> None:
        with contextlib.suppress(Exception):
            save(*arguments)

    cache.load_overload, cache.save_overload = load_or_compile, save_if_possible
    return dispatcher
