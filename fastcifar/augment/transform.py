"""The data path's one operation on images: uint8 in, normalised channels_last tensors out."""

import numpy as np
import torch

from fastcifar.augment.buffer_pool import BufferPool
from fastcifar.augment.pixel import centred_bias, rounded_scale
from fastcifar.config import AugmentConfig
from fastcifar.errors import UserError
from fastcifar.rng import Purpose, stream_key

SIDE = 32
LARGEST_INT64 = 2**63 - 1
KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


class Transform:
    """Augments, normalises and casts images; what happens to one depends only on (seed, epoch, sample).

    Compiling is left to the first call. Safe to call from several threads where numba's threading layer is.
    """

    def __init__(
        self,
        config: AugmentConfig,
        mean_01: tuple[float, ...],
        std_01: tuple[float, ...],
        *,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """`mean_01` and `std_01`: per channel on the 0..1 scale; `dtype`: float32, bfloat16 or float16."""
        if dtype not in KINDS:
            raise UserError(f"images cannot be cast to {dtype}; choose one of {', '.join(map(str, KINDS))}")
        if min(std_01) <= 0:
            raise UserError(f"the standard deviation of every channel must be above 0, got {std_01}")
        self.config, self.seed, self.dtype = config, seed, dtype
        self.scale = rounded_scale(np.asarray(std_01))
        self.bias = centred_bias(np.asarray(mean_01), self.scale)
        self._buffers = BufferPool()
        self._row_scale, self._row_bias = np.tile(self.scale, SIDE), np.tile(self.bias, SIDE)

    def __call__(
        self, images: np.ndarray, rows: np.ndarray, samples: np.ndarray, epoch: int, size: int = SIDE
    ) -> torch.Tensor:
        """A tensor (b, 3, size, size), channels_last, of the images at `rows`; nobody else's while it lives.

        `images`: uint8 (n, 32, 32, 3), C-contiguous. `rows`: int64 (b,) positions in `images`. `samples`: int64 (b,)
        data-set indices, which key the draws. `size`: 1 to 32; `config.small` says how less than 32 is made.
        Raises UserError for another shape, type or range.
        """
        _check(images, rows, samples, size)
        import numba

        from fastcifar.augment.kernel_cpu import kernel

        config = self.config
        buffer = self._buffers.take(len(rows) * size * size * 3 * self.dtype.itemsize)
        bits = buffer.view(np.uint32 if self.dtype.itemsize == 4 else np.uint16)
        alternating = config.flip == "alternating"
        kernel()(
            images.reshape(-1, SIDE, 3 * SIDE),
            rows,
            samples,
            stream_key(self.seed, Purpose.AUGMENT, epoch),
            stream_key(self.seed, Purpose.FLIP, 0 if alternating else epoch + 1),
            config.flip != "none",
            np.uint64(epoch & 1 if alternating else 0),
            config.pad,
            config.pad_mode == "reflect",
            crop_side(config, size),
            config.cutout,
            self._row_scale,
            self._row_bias,
            KINDS[self.dtype],
            min(numba.get_num_threads(), max(1, len(rows))),
            bits.reshape(len(rows), size, 3 * size),
        )
        out = torch.from_numpy(buffer).view(self.dtype)  # holds the buffer as long as it lives
        return out.view(len(rows), size, size, 3).permute(0, 3, 1, 2)


def crop_side(config: AugmentConfig, size: int) -> int:
    """The side of the crop that an image of `size` pixels is made from: its own, or 32 where it is an average."""
    return size if config.small == "crop" else SIDE


def _check(images: np.ndarray, rows: np.ndarray, samples: np.ndarray, size: int) -> None:
    # the kernel checks no index: what passes here cannot read outside the images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (SIDE, SIDE, 3):
        raise UserError(f"images must be uint8 (n, 32, 32, 3), got {images.dtype} {images.shape}")
    for name, index in (("rows", rows), ("samples", samples)):
        if index.dtype != np.int64 or index.ndim != 1 or len(index) != len(rows):
            raise UserError(f"{name} must be int64 ({len(rows)},), got {index.dtype} {index.shape}")
    # as unsigned numbers negative ones are the largest, so one pass finds both ends
    if len(rows) and rows.view(np.uint64).max() >= len(images):
        raise UserError(f"rows reach from {rows.min()} to {rows.max()}, but there are {len(images)} images")
    if samples is not rows and len(samples) and samples.view(np.uint64).max() > LARGEST_INT64:
        raise UserError(f"samples must not be negative, got {samples.min()}")
    if not 1 <= size <= SIDE:
        raise UserError(f"the output size is {size}, but must be between 1 and {SIDE}")
