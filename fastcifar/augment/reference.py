"""Augmentation in plain NumPy, one operation after the other: slow, obvious, and the oracle of every kernel."""

import numpy as np

from fastcifar.config import AugmentConfig
from fastcifar.rng import Purpose, hash64, stream_key

SIDE = 32


def below(hashed: np.ndarray, half: int, limit: int) -> int:
    """A draw in [0, limit) from the low (0) or high (1) 32 bits of `hashed`, uint64 (1,)."""
    bits = int(hashed[0]) >> 32 * half & 0xFFFFFFFF
    return bits * limit >> 32


def hash_one(key: np.uint64, counter: int) -> np.ndarray:
    """uint64 (1,); arrays, because NumPy warns when a scalar wraps around."""
    return hash64(np.array([key]), np.array([counter], np.uint64))


def is_flipped(mode: str, seed: int, epoch: int, sample: int) -> bool:
    """Whether `sample` is mirrored in `epoch`; alternating: a coin per sample decides which epochs, odd or even."""
    coin = int(hash_one(stream_key(seed, Purpose.FLIP), sample)[0]) & 1
    if mode == "random":
        return bool(int(hash_one(stream_key(seed, Purpose.FLIP, epoch + 1), sample)[0]) & 1)
    return mode == "alternating" and bool((coin + epoch) & 1)


def area_average(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (32, 32, 3) to uint8 (size, size, 3): each output pixel is the mean of the area it covers, half up."""
    weights = np.zeros((size, SIDE), np.int64)
    for i in range(size):
        for j in range(SIDE):
            weights[i, j] = max(0, min(SIDE * (i + 1), size * (j + 1)) - max(SIDE * i, size * j))
    total = np.einsum("iy,jx,yxc->ijc", weights, weights, image.astype(np.int64))
    return ((total + 512) >> 10).astype(np.uint8)


def cast(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 array to the bit patterns of `dtype`, rounded to nearest even: uint32, or uint16 for 16-bit types."""
    if dtype == "float32":
        return values.view(np.uint32)
    if dtype == "float16":
        flushed = np.where(np.abs(values) < np.float32(2**-14), np.copysign(np.float32(0), values), values)
        return flushed.astype(np.float16).view(np.uint16)
    low, high = values.view(np.uint32) & 0xFFFF, (values.view(np.uint32) >> 16).astype(np.uint16)
    up = (low > 0x8000) | ((low == 0x8000) & (high & 1 == 1))
    return high + up.astype(np.uint16)


def augment_one(
    image: np.ndarray,
    config: AugmentConfig,
    scale: np.ndarray,
    bias: np.ndarray,
    *,
    seed: int,
    epoch: int,
    sample: int,
    size: int = SIDE,
    dtype: str = "float32",
) -> np.ndarray:
    """One image, uint8 (32, 32, 3), as bit patterns (size, size, 3) of `dtype`; scale and bias float32 (3,)."""
    key = stream_key(seed, Purpose.AUGMENT, epoch)
    crop = hash_one(key, 2 * sample)
    window = size if config.small == "crop" else SIDE
    y, x = (below(crop, half, 2 * config.pad + 1 + SIDE - window) for half in (0, 1))
    borders = ((config.pad, config.pad), (config.pad, config.pad), (0, 0))
    padded = np.pad(image, borders, mode="constant" if config.pad_mode == "zero" else "reflect")
    cropped = padded[y : y + window, x : x + window]
    if is_flipped(config.flip, seed, epoch, sample):
        cropped = cropped[:, ::-1]
    if size != window:
        cropped = area_average(cropped, size)
    values = cropped.astype(np.float32) * scale + bias
    if config.cutout:
        hole = hash_one(key, 2 * sample + 1)
        top, left = (below(hole, half, SIDE) - config.cutout // 2 for half in (0, 1))
        centres = (np.arange(size) + 0.5) * (SIDE / size)
        in_rows = (centres >= top) & (centres < top + config.cutout)
        in_columns = (centres >= left) & (centres < left + config.cutout)
        values[np.ix_(in_rows, in_columns)] = 0
    return cast(values, dtype)
