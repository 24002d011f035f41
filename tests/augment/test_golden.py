"""Digests of a seed's orders and images. A version that changes them cannot repeat the runs of earlier versions.

The input images are a formula, so the digests depend only on order and augmentation.
"""

import hashlib

import numpy as np
import pytest
import torch

from fastcifar.augment.transform import Transform
from fastcifar.config import AugmentConfig
from fastcifar.loader.order import epoch_order

ORDERS = {
    (0, 0): "34a9f320828228f0",
    (0, 1): "2e02638ed9c8c6c2",
    (1, 0): "334e478d17ed5728",
    (9223372036854775807, 1000): "0d3368feb519d1e1",
}
IMAGES = {
    ("zero", "random", torch.float32, 32): "efb1879189ab74ca",
    ("reflect", "alternating", torch.bfloat16, 32): "f0c42c222d5077d5",
    ("zero", "none", torch.float16, 24): "10f4a6470ca1469c",
    ("reflect", "random", torch.float32, 16): "3c3fbf2130224bf9",
}


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def images() -> np.ndarray:
    n, y, x, c = np.ogrid[:64, :32, :32, :3]
    return ((n * 37 + y * y * 5 + x * 11 + c * 61 + n * x * y) % 256).astype(np.uint8)


@pytest.mark.parametrize(("seed", "epoch"), ORDERS)
def test_orders(seed: int, epoch: int) -> None:
    assert digest(epoch_order(50_000, seed, epoch).astype("<i8")) == ORDERS[seed, epoch]


@pytest.mark.parametrize(("pad_mode", "flip", "dtype", "size"), IMAGES)
def test_images(pad_mode: str, flip: str, dtype: torch.dtype, size: int) -> None:
    config = AugmentConfig(pad=4, pad_mode=pad_mode, flip=flip, cutout=8)  # type: ignore[arg-type]
    transform = Transform(config, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), seed=7, dtype=dtype)
    indices = np.arange(64)
    batch = transform(images(), indices, indices + 1000, 3, size).permute(0, 2, 3, 1).contiguous()
    assert digest(batch.view(torch.uint8).numpy()) == IMAGES[pad_mode, flip, dtype, size]
