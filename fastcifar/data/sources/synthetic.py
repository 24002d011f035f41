"""A procedural data set of ten shapes, of any size, without a download.

A sample is a pure function of (seed, split, index) in integer arithmetic, so it is the same on every machine and
independent of the number of samples. Only the shape depends on the class. Position, size, both colours, gradient and
noise do not, so a classifier learns nothing from the mean colour.
"""

from collections.abc import Callable

import numpy as np

from fastcifar.config.schema import LARGEST_SEED
from fastcifar.data.cifar10 import IMAGE_BYTES, IMAGE_SHAPE, IMAGE_SIZE, TEST_SAMPLES, TRAIN_SAMPLES
from fastcifar.data.raw_set import RawSet, RawSplit, SourceInfo
from fastcifar.errors import UserError

_CHUNK = 2048  # samples; each int64 array of their pixels takes 17 MB
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, the increment of splitmix64
_PARAMETERS = 16  # random words of a sample before those of its noise
_NOISE = 40  # the noise is uniform in -20..19
_MIN_CONTRAST = 60  # of the two colours in at least one channel

# A shape is a mask over x, y (pixels from its centre) and r (its radius); all arrays broadcast to (n, 32, 32).
_Mask = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
_SHAPES: dict[str, _Mask] = {
    "checkerboard": lambda x, y, r: _box(x, y, r) & (((x + 64) // 4 + (y + 64) // 4) % 2 == 0),
    "columns": lambda x, y, r: _box(x, y, r) & ((x + 64) // 3 % 2 == 0),
    "cross": lambda x, y, r: _box(x, y, r) & (np.minimum(abs(x), abs(y)) * 4 <= r),
    "diagonals": lambda x, y, r: _box(x, y, r) & (abs(abs(x) - abs(y)) * 3 <= r),
    "disc": lambda x, y, r: x * x + y * y <= r * r,
    "frame": lambda x, y, r: _box(x, y, r) & (np.maximum(abs(x), abs(y)) * 3 > r * 2),
    "ring": lambda x, y, r: (x * x + y * y <= r * r) & ((x * x + y * y) * 9 > r * r * 4),
    "rows": lambda x, y, r: _box(x, y, r) & ((y + 64) // 3 % 2 == 0),
    "square": lambda x, y, r: _box(x, y, r),
    "triangle": lambda x, y, r: (y <= r) & (2 * abs(x) <= y + r),
}


def synthetic_set(train: int = TRAIN_SAMPLES, test: int = TEST_SAMPLES, seed: int = 0) -> RawSet:
    """`train` and `test` samples of ten shapes from independent random streams; labels cycle through 0..9.

    UserError for fewer than 10 samples in a split or a seed outside 0..2**63-1.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"the seed of the synthetic set is {seed}, expected 0..2**63-1")
    for name, count in (("train", train), ("test", test)):
        if not len(_SHAPES) <= count <= 10_000_000:
            raise UserError(f"the synthetic set has {count} {name} samples, expected 10..10000000")
    return RawSet(
        train=_split(train, seed, 0),
        test=_split(test, seed, 1),
        class_names=tuple(_SHAPES),
        source=SourceInfo(kind="synthetic", name="synthetic", seed=seed),
    )


def _split(count: int, seed: int, stream: int) -> RawSplit:
    labels = np.arange(count, dtype=np.int64) % len(_SHAPES)
    images = np.empty((count, *IMAGE_SHAPE), np.uint8)
    for start in range(0, count, _CHUNK):
        indices = np.arange(start, min(start + _CHUNK, count), dtype=np.uint64)
        images[start : start + _CHUNK] = _draw(_words(seed, stream, indices), labels[start : start + _CHUNK])
    return RawSplit(images_nhwc=images, labels=labels)


def _mix(words: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64 (https://prng.di.unimi.it/splitmix64.c): a bijection on uint64."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _words(seed: int, stream: int, indices: np.ndarray) -> np.ndarray:
    """The random words of each sample: uint64 (n, _PARAMETERS + IMAGE_BYTES // 8)."""
    key = _mix(np.array([seed], np.uint64) + _GOLDEN)
    key = _mix((key ^ np.array([stream], np.uint64)) + _GOLDEN)
    keys = _mix((key ^ indices) + _GOLDEN)[:, None]
    columns = np.arange(1, _PARAMETERS + IMAGE_BYTES // 8 + 1, dtype=np.uint64)
    return _mix(keys + columns * _GOLDEN)


def _draw(words: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Images, uint8 (n, 32, 32, 3), from `_words` and labels."""
    parameters = (words[:, :_PARAMETERS] >> np.uint64(33)).astype(np.int64)  # 31 bits each
    radius = 7 + parameters[:, 0] % 6
    centre_x, centre_y = (radius + parameters[:, i] % (IMAGE_SIZE - 2 * radius) for i in (1, 2))
    pixels = np.arange(IMAGE_SIZE)
    x = pixels[None, None, :] - centre_x[:, None, None]
    y = pixels[None, :, None] - centre_y[:, None, None]
    mask = np.empty((len(labels), IMAGE_SIZE, IMAGE_SIZE), bool)
    for label, shape in enumerate(_SHAPES.values()):
        of_class = labels == label
        mask[of_class] = shape(x[of_class], y[of_class], radius[of_class, None, None])
    background, foreground = _colours(parameters[:, 3:10])
    images = np.where(mask[..., None], foreground[:, None, None, :], background[:, None, None, :])
    slope = parameters[:, 10:12] % 5 - 2  # brightness per two pixels, across and down
    images += ((pixels[None, None, :] - 16) * slope[:, :1, None] // 2)[..., None]
    images += ((pixels[None, :, None] - 16) * slope[:, 1:, None] // 2)[..., None]
    noise = np.ascontiguousarray(words[:, _PARAMETERS:]).astype("<u8").view(np.uint8)
    images += noise.reshape(-1, *IMAGE_SHAPE).astype(np.int64) * _NOISE // 256 - _NOISE // 2
    return images.clip(0, 255).astype(np.uint8)


def _colours(parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two colours, int64 (n, 3) each, that differ by at least `_MIN_CONTRAST` in at least one channel."""
    background, foreground = parameters[:, :3] % 256, parameters[:, 3:6] % 256
    rows, channel = np.arange(len(parameters)), parameters[:, 6] % 3
    near = abs(background - foreground).max(axis=1) < _MIN_CONTRAST
    level = background[rows, channel]
    pushed = np.where(level < 128, level + 2 * _MIN_CONTRAST, level - 2 * _MIN_CONTRAST)
    foreground[rows[near], channel[near]] = pushed[near]
    return background, foreground


def _box(x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    return np.maximum(abs(x), abs(y)) <= r
