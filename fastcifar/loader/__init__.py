"""Loaders: prepared data in, augmented batches out. `stream` reads through FFCV, `resident` holds the set in memory.

Both give the same batches, bit for bit and in the same order; which one is faster depends on the machine, never the
result. `open_loader` is the only entry; importing this package imports nothing heavy.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fastcifar.errors import UserError

if TYPE_CHECKING:
    import torch

    from fastcifar.augment.transform import Transform
    from fastcifar.loader.base import Loader

LOADERS = ("stream", "resident")
"""The kinds of loader, as `open_loader` takes them."""


def open_loader(
    kind: Literal["stream", "resident"],
    folder: Path,
    split: Literal["train", "test"],
    transform: "Transform",
    *,
    batch_size: int,
    seed: int,
    shuffle: bool,
    drop_last: bool,
    size_at: Callable[[int], int] | None = None,
    device: "torch.device | None" = None,
) -> "Loader":
    """Opens one split of the prepared data in `folder`; the file is checked against the manifest before it is read.

    `batch_size` samples make a batch; `drop_last` leaves out a smaller last one. With `shuffle` the order is a pure
    function of (`seed`, epoch), else it is that of the file. `size_at(global step)` is the side of the output in
    pixels, where the global step is epoch * len(loader) + batch number; None means 32 throughout. With a CUDA `device`
    the batches are made by the GPU, in its memory; None is the CPU.

    Raises UserError for an unknown kind, a batch size that is below 1 or would deliver nothing, a seed outside
    [0, 2**64), and data that is missing or damaged.
    """
    if kind not in LOADERS:
        raise UserError(f"no loader is called {kind!r}: choose one of {', '.join(LOADERS)}")
    options: dict[str, Any] = {}
    if device is not None and device.type == "cuda":
        from fastcifar.loader import cuda

        Kind = cuda.CudaStreamLoader if kind == "stream" else cuda.CudaResidentLoader  # noqa: N806
        options["device"] = device
    elif kind == "stream":
        from fastcifar.loader.stream import StreamLoader as Kind
    else:
        from fastcifar.loader.resident import ResidentLoader as Kind
    return Kind(
        folder,
        split,
        transform,
        batch_size=batch_size,
        seed=seed,
        shuffle=shuffle,
        drop_last=drop_last,
        size_at=size_at,
        **options,
    )
