"""The data path's one operation on images: uint8 in, augmented and normalised channels_last tensors out."""

from typing import Any

import numpy as np
import torch

from fastcifar.augment.buffer_pool import BufferPool
from fastcifar.augment.pixel import BFLOAT16, FLOAT16, FLOAT32, centred_bias, rounded_scale
from fastcifar.config import AugmentConfig
from fastcifar.data.cifar10 import CHANNELS, IMAGE_SHAPE, IMAGE_SIZE
from fastcifar.errors import UserError
from fastcifar.rng import Purpose, stream_key

LARGEST_INT64 = 2**63 - 1
DTYPE_CODES = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.float16: FLOAT16}


class Transform:
    """Augments, normalises and casts images. The result for an image depends only on (seed, epoch, sample id).

    The first call compiles the kernel. Calls from several threads are safe if numba's threading layer is thread-safe.
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
        if dtype not in DTYPE_CODES:
            raise UserError(f"images cannot be cast to {dtype}; choose one of {', '.join(map(str, DTYPE_CODES))}")
        if min(std_01) <= 0:
            raise UserError(f"std_01 is {std_01}, but the standard deviation of every channel must be above 0")
        self.config, self.seed, self.dtype = config, seed, dtype
        self.scale = rounded_scale(np.asarray(std_01))
        self.bias = centred_bias(np.asarray(mean_01), self.scale)
        self._line_scale, self._line_bias = np.tile(self.scale, IMAGE_SIZE), np.tile(self.bias, IMAGE_SIZE)
        self._buffers = BufferPool()

    def __call__(
        self, images: np.ndarray, indices: np.ndarray, sample_ids: np.ndarray, epoch: int, size: int = IMAGE_SIZE
    ) -> torch.Tensor:
        """A channels_last tensor (b, 3, size, size) of `images[indices]`; its memory is not reused while it exists.

        `images`: uint8 (n, 32, 32, 3), C-contiguous. `indices`: int64 (b,), positions in `images`. `sample_ids`: int64
        (b,), data-set indices that key the random draws. `size`: 1 to 32; `config.small` selects how images smaller
        than 32 are made. Raises UserError for another shape, dtype or range.
        """
        check_inputs(images, indices, sample_ids, size)
        _check_ranges(images, indices, sample_ids)
        import numba

        from fastcifar.augment.kernel_cpu import kernel

        config, count = self.config, len(indices)
        buffer = self._buffers.take(count * size * size * CHANNELS * self.dtype.itemsize)
        bits = buffer.view(np.uint32 if self.dtype.itemsize == 4 else np.uint16)
        alternating = config.flip == "alternating"
        kernel()(
            images.reshape(-1, IMAGE_SIZE, CHANNELS * IMAGE_SIZE),
            indices,
            sample_ids,
            stream_key(self.seed, Purpose.AUGMENT, epoch),
            stream_key(self.seed, Purpose.FLIP, 0 if alternating else epoch + 1),
            config.flip != "none",
            np.uint64(epoch & 1 if alternating else 0),
            config.pad,
            config.pad_mode == "reflect",
            crop_size(config, size),
            config.cutout,
            self._line_scale,
            self._line_bias,
            DTYPE_CODES[self.dtype],
            min(numba.get_num_threads(), max(1, count)),
            bits.reshape(count, size, CHANNELS * size),
        )
        out = torch.from_numpy(buffer).view(self.dtype)  # refers to the buffer, so the pool does not reuse it
        return out.view(count, size, size, CHANNELS).permute(0, 3, 1, 2)


def crop_size(config: AugmentConfig, size: int) -> int:
    """Side of the crop that an image of `size` pixels is made from: `size`, or 32 if it is an area average."""
    return size if config.small == "crop" else IMAGE_SIZE


def check_inputs(images: Any, indices: Any, sample_ids: Any, size: int) -> None:
    """Raises UserError unless these NumPy arrays or tensors have the dtypes and shapes of `Transform.__call__`."""
    if str(images.dtype).removeprefix("torch.") != "uint8" or images.shape[1:] != IMAGE_SHAPE:
        raise UserError(f"images must be uint8 (n, 32, 32, 3), got {images.dtype} {tuple(images.shape)}")
    for name, index in (("indices", indices), ("sample_ids", sample_ids)):
        if str(index.dtype).removeprefix("torch.") != "int64" or index.shape != (len(indices),):
            raise UserError(f"{name} must be int64 ({len(indices)},), got {index.dtype} {tuple(index.shape)}")
    if not 1 <= size <= IMAGE_SIZE:
        raise UserError(f"size is {size}, but must be between 1 and {IMAGE_SIZE}")


def _check_ranges(images: np.ndarray, indices: np.ndarray, sample_ids: np.ndarray) -> None:
    # the kernel checks no index, so this is what keeps it from reading outside `images`;
    # viewed as unsigned, negative numbers are the largest, so one pass finds both ends
    if len(indices) and indices.view(np.uint64).max() >= len(images):
        raise UserError(f"indices reach from {indices.min()} to {indices.max()}, but there are {len(images)} images")
    if sample_ids is not indices and len(sample_ids) and sample_ids.view(np.uint64).max() > LARGEST_INT64:
        raise UserError(f"sample_ids must not be negative, got {sample_ids.min()}")
