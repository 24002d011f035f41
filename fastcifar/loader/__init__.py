"""Loaders: prepared data in, augmented batches out. `stream` reads through FFCV, `resident` holds the set in memory.

Both give bit-identical batches in the same order. Which one is faster depends on the machine.
`open_loader` is the only entry point; importing this package imports neither torch nor FFCV.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from fastcifar.data.raw_set import Split
from fastcifar.errors import UserError, choose_one
from fastcifar.loader.options import LOADERS, LoaderKind, LoaderOptions

if TYPE_CHECKING:
    from fastcifar.augment.transform import Transform
    from fastcifar.loader.base import Loader

__all__ = ["LOADERS", "LoaderKind", "LoaderOptions", "open_loader"]


def open_loader(
    kind: LoaderKind, folder: Path, split: Split, transform: "Transform", options: LoaderOptions
) -> "Loader":
    """Checks one split of the prepared data in `folder` against its manifest and opens a loader of it.

    Raises UserError for an unknown kind, for options that leave no batch, and for data that is missing or damaged.
    """
    if kind not in LOADERS:
        raise UserError(f"no loader is called {kind!r}: {choose_one(kind, LOADERS)}")
    if options.on_device:
        from fastcifar.loader import device

        loader = device.DeviceStreamLoader if kind == "stream" else device.DeviceResidentLoader
    else:
        from fastcifar.loader import resident, stream

        loader = stream.StreamLoader if kind == "stream" else resident.ResidentLoader
    return loader(folder, split, transform, options)
