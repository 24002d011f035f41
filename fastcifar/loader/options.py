"""What a loader delivers, and where."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from fastcifar.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fastcifar.augment.transform_device import DeviceTransform
    from fastcifar.config import AugmentOp

LoaderKind = Literal["stream", "resident"]
LOADERS: tuple[LoaderKind, ...] = get_args(LoaderKind)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderOptions:
    """Batch size, order, image size and device of a loader. Raises UserError for a value out of range."""

    batch_size: int
    """Samples in a batch, at least 1."""
    seed: int
    """Seed of the shuffled order, 0 to 2**64 - 1."""
    shuffle: bool
    """True: every epoch has its own order, a pure function of (seed, epoch). False: the order of the file."""
    drop_last: bool
    """Whether to leave out a last batch of fewer than `batch_size` samples."""
    size_at: Callable[[int], int] | None = None
    """Image side in pixels at a global step, epoch * len(loader) + batch number. None: 32 throughout."""
    op: "AugmentOp | None" = None
    """Applied to the batches after the transform; its random draws depend on `seed`."""
    device: "torch.device | None" = None
    """A device other than the CPU makes the batches itself, in its own memory. None is the CPU."""
    transform: "type[DeviceTransform] | None" = None
    """What makes the batches on the device. None: the CUDA kernel, or tensor operations where there is no CUDA."""
    storage: "tuple[Tensor, Tensor] | None" = None
    """Images uint8 (n, 32, 32, 3) and labels int64 (n,) on the device for a resident loader to fill. None: new ones."""

    @property
    def on_device(self) -> bool:
        """Whether a device makes the batches; with `transform` even the CPU does so as if it were one."""
        return self.transform is not None or (self.device is not None and self.device.type != "cpu")

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"batch size {self.batch_size} is too small: give at least 1")
        check_uint64("seed", self.seed)


def check_uint64(name: str, value: int) -> None:
    """Raises UserError unless `value` fits into 64 bits without a sign."""
    if not 0 <= value < 2**64:
        raise UserError(f"{name} {value} is out of range: give a whole number from 0 to 2**64 - 1")
