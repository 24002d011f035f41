"""Augmentation in plain NumPy, one operation after the other: slow, obvious, and the oracle of every kernel."""

import numpy as np
import torch

from fastcifar.augment.transform import Transform, crop_size
from fastcifar.data.cifar10 import IMAGE_SIZE
from fastcifar.rng import Purpose, hash64, stream_key


def below(hashed: np.ndarray, half: int, limit: int) -> int:
    """A draw in [0, limit) from the low (0) or high (1) 32 bits of `hashed`, uint64 (1,)."""
    bits = int(hashed[0]) >> 32 * half & 0xFFFFFFFF
    return bits * limit >> 32


def hash_one(key: np.uint64, counter: int) -> np.ndarray:
    """uint64 (1,); arrays, because NumPy warns when a scalar overflows."""
    return hash64(np.array([key]), np.array([counter], np.uint64))


def is_flipped(mode: str, seed: int, epoch: int, sample_id: int) -> bool:
    """Whether a sample is flipped in `epoch`. With "alternating" one coin per sample selects odd or even epochs."""
    coin = int(hash_one(stream_key(seed, Purpose.FLIP), sample_id)[0]) & 1
    if mode == "random":
        return bool(int(hash_one(stream_key(seed, Purpose.FLIP, epoch + 1), sample_id)[0]) & 1)
    return mode == "alternating" and bool((coin + epoch) & 1)


def area_average(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (32, 32, 3) to uint8 (size, size, 3): the mean of the area each output pixel covers, rounded half up."""
    weights = np.zeros((size, IMAGE_SIZE), np.int64)
    for i in range(size):
        for j in range(IMAGE_SIZE):
            weights[i, j] = max(0, min(IMAGE_SIZE * (i + 1), size * (j + 1)) - max(IMAGE_SIZE * i, size * j))
    total = np.einsum("iy,jx,yxc->ijc", weights, weights, image.astype(np.int64))
    return ((total + 512) >> 10).astype(np.uint8)


def cast(values: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """float32 array to the bit patterns of `dtype`, rounded to nearest even: uint32, or uint16 for 16-bit dtypes."""
    if dtype == torch.float32:
        return values.view(np.uint32)
    if dtype == torch.float16:
        flushed = np.where(np.abs(values) < np.float32(2**-14), np.copysign(np.float32(0), values), values)
        return flushed.astype(np.float16).view(np.uint16)
    low, high = values.view(np.uint32) & 0xFFFF, (values.view(np.uint32) >> 16).astype(np.uint16)
    up = (low > 0x8000) | ((low == 0x8000) & (high & 1 == 1))
    return high + up.astype(np.uint16)


def augment_one(
    image: np.ndarray, transform: Transform, *, epoch: int, sample_id: int, size: int = IMAGE_SIZE
) -> np.ndarray:
    """What `transform` makes of one image, uint8 (32, 32, 3): bit patterns (size, size, 3) of its dtype."""
    config, side = transform.config, crop_size(transform.config, size)
    key = stream_key(transform.seed, Purpose.AUGMENT, epoch)
    crop = hash_one(key, 2 * sample_id)
    y, x = (below(crop, half, 2 * config.pad + 1 + IMAGE_SIZE - side) for half in (0, 1))
    borders = ((config.pad, config.pad), (config.pad, config.pad), (0, 0))
    padded = np.pad(image, borders, mode="constant" if config.pad_mode == "zero" else "reflect")
    cropped = padded[y : y + side, x : x + side]
    if is_flipped(config.flip, transform.seed, epoch, sample_id):
        cropped = cropped[:, ::-1]
    if size != side:
        cropped = area_average(cropped, size)
    values = cropped.astype(np.float32) * transform.scale + transform.bias
    if config.cutout:
        hole = hash_one(key, 2 * sample_id + 1)
        top, left = (below(hole, half, IMAGE_SIZE) - config.cutout // 2 for half in (0, 1))
        centres = (np.arange(size) + 0.5) * (IMAGE_SIZE / size)
        in_rows = (centres >= top) & (centres < top + config.cutout)
        in_columns = (centres >= left) & (centres < left + config.cutout)
        values[np.ix_(in_rows, in_columns)] = 0
    return cast(values, transform.dtype)
