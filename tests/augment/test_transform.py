"""The compiled kernel against the plain reference, bit for bit, and both against torch and torchvision."""

import itertools
from collections import Counter

import numba
import numpy as np
import pytest
import torch
from bit_patterns import bits
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from fastcifar.augment import pixel, reference
from fastcifar.augment.transform import DTYPE_CODES, Transform
from fastcifar.config import NO_AUGMENTATION, AugmentConfig
from fastcifar.errors import UserError

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
DTYPES = list(DTYPE_CODES)
ZERO_TO_ONE = ((0.0,) * 3, (1.0,) * 3)  # a mean and a standard deviation that only divide pixels by 255


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("pad_mode", "flip", "small"),
    list(itertools.product(("zero", "reflect"), ("none", "random", "alternating"), ("area", "crop"))),
)
def test_kernel_equals_reference_for_every_option(dtype: torch.dtype, pad_mode, flip, small):
    for pad, cutout, size in ((0, 0, 32), (4, 8, 32), (4, 7, 20), (16, 32, 16), (2, 0, 24), (4, 8, 1), (1, 1, 31)):
        config = AugmentConfig(pad=pad, pad_mode=pad_mode, flip=flip, cutout=cutout, small=small)
        transform = Transform(config, MEAN, STD, seed=5, dtype=dtype)
        indices, ids = np.array([0, 7, 39, 7]), np.array([0, 49_999, 3, 2**62])
        batch = bits(transform(IMAGES, indices, ids, 3, size))
        for found, index, sample_id in zip(batch, indices, ids.tolist(), strict=True):
            expected = reference.augment_one(IMAGES[index], transform, epoch=3, sample_id=sample_id, size=size)
            assert np.array_equal(found, expected), (config, size)


@settings(max_examples=100, deadline=None)
@given(
    config=st.builds(
        AugmentConfig,
        pad=st.integers(0, 16),
        pad_mode=st.sampled_from(["zero", "reflect"]),
        flip=st.sampled_from(["none", "random", "alternating"]),
        cutout=st.integers(0, 32),
        small=st.sampled_from(["area", "crop"]),
    ),
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 10_000),
    sample_id=st.integers(0, 2**60),
    size=st.integers(1, 32),
    dtype=st.sampled_from(DTYPES),
)
def test_kernel_equals_reference_anywhere(config, seed, epoch, sample_id, size, dtype):
    transform = Transform(config, MEAN, STD, seed=seed, dtype=dtype)
    batch = transform(IMAGES, np.array([1]), np.array([sample_id]), epoch, size)
    expected = reference.augment_one(IMAGES[1], transform, epoch=epoch, sample_id=sample_id, size=size)
    assert np.array_equal(bits(batch)[0], expected)


def test_same_images_for_any_batch_size_order_and_thread_count():
    transform = Transform(AugmentConfig(), MEAN, STD, seed=1)
    indices = np.arange(len(IMAGES))
    whole = transform(IMAGES, indices, indices, 2)
    batches = [transform(IMAGES, batch, batch, 2) for batch in np.array_split(indices, 6)]
    assert torch.equal(torch.cat(batches), whole)
    backwards = indices[::-1].copy()
    assert torch.equal(transform(IMAGES, backwards, backwards, 2).flip(0), whole)
    before = numba.get_num_threads()
    try:
        for threads in range(1, before + 1):
            numba.set_num_threads(threads)
            assert torch.equal(transform(IMAGES, indices, indices, 2), whole)
    finally:
        numba.set_num_threads(before)


def test_batches_are_channels_last_and_may_be_empty():
    transform, indices = Transform(AugmentConfig(), MEAN, STD), np.arange(4)
    batch = transform(IMAGES, indices, indices, 0)
    assert batch.shape == (4, 3, 32, 32)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert transform(IMAGES, indices[:0], indices[:0], 0).shape == (0, 3, 32, 32)


def augment_many(image: np.ndarray, config: AugmentConfig, count: int, epoch: int = 0, size: int = 32) -> torch.Tensor:
    """`count` samples of one image (1, 32, 32, 3), pixels from 0 to 1."""
    return Transform(config, *ZERO_TO_ONE)(image, np.zeros(count, np.int64), np.arange(count), epoch, size)


def test_random_flip_is_a_fair_coin_in_each_epoch_and_alternating_flips_every_other():
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[None, None, :, None], (1, 32, 32, 3)).copy()

    def flipped(mode, epoch: int) -> torch.Tensor:
        batch = augment_many(ramp, AugmentConfig(pad=0, flip=mode, cutout=0), 2500, epoch)
        return batch[:, 0, 0, 0] > batch[:, 0, 0, 31]

    first, second = flipped("random", 0), flipped("random", 1)
    assert abs(first.float().mean() - 0.5) < 0.05
    assert abs((first == second).float().mean() - 0.5) < 0.05  # independent from epoch to epoch
    once, again = flipped("alternating", 0), flipped("alternating", 1)
    assert abs(once.float().mean() - 0.5) < 0.05
    assert torch.equal(once, ~again)
    assert torch.equal(once, flipped("alternating", 2))


def test_cutout_fills_with_the_mean_and_is_clipped_at_the_border():
    white = np.full((1, 32, 32, 3), 255, np.uint8)
    transform = Transform(AugmentConfig(pad=0, flip="none", cutout=8), MEAN, STD)
    batch = transform(white, np.zeros(3000, np.int64), np.arange(3000), 0)
    hole = batch == 0
    assert torch.equal(hole[:, 0], hole[:, 1])
    heights, widths = hole[:, 0].any(2).sum(1), hole[:, 0].any(1).sum(1)
    assert (hole[:, 0].sum((1, 2)) == heights * widths).all()  # always a rectangle
    assert heights.max() == widths.max() == 8
    assert heights.min() == widths.min() == 4  # a centre on the border keeps half


def test_normalised_images_agree_with_torchvision():
    transform = Transform(NO_AUGMENTATION, MEAN, STD)
    indices = np.arange(len(IMAGES))
    theirs = tv.normalize(
        tv.to_dtype(torch.from_numpy(IMAGES).permute(0, 3, 1, 2), torch.float32, scale=True), list(MEAN), list(STD)
    )
    torch.testing.assert_close(transform(IMAGES, indices, indices, 0), theirs, rtol=0, atol=6e-5)


@pytest.mark.parametrize("size", [32, 28])
@pytest.mark.parametrize(("mode", "theirs"), [("zero", "constant"), ("reflect", "reflect")])
def test_crops_are_all_windows_of_torchvisions_padded_image_equally_often(mode, theirs, size: int):
    pad = 1 if size < 32 else 3  # both give 7 * 7 windows
    config = AugmentConfig(pad=pad, pad_mode=mode, flip="none", cutout=0, small="crop")
    batch = augment_many(IMAGES[:1], config, 4900, size=size)
    padded = tv.pad(torch.from_numpy(IMAGES[:1]).permute(0, 3, 1, 2), [pad], padding_mode=theirs)[0]
    windows = [padded[:, y : y + size, x : x + size].numpy().tobytes() for y in range(7) for x in range(7)]
    drawn = Counter(image.numpy().tobytes() for image in (batch * 255).round().to(torch.uint8).contiguous())
    assert set(drawn) == set(windows)
    assert max(abs(count - 100) for count in drawn.values()) < 5 * 100**0.5


def test_area_and_crop_are_the_same_at_32():
    indices = np.arange(len(IMAGES))
    area, crop = (
        Transform(AugmentConfig(small=small), MEAN, STD)(IMAGES, indices, indices, 1) for small in ("area", "crop")
    )
    assert torch.equal(area, crop)


@pytest.mark.parametrize("size", [16, 20, 24, 32])
def test_smaller_images_are_area_averages(size: int):
    ours = reference.area_average(IMAGES[0], size)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(IMAGES[:1]).permute(0, 3, 1, 2).double(), size=(size, size), mode="area"
    )
    if 32 % size == 0:  # torch's "area" averages whole pixels; otherwise the results differ
        assert np.abs(ours - theirs[0].permute(1, 2, 0).numpy()).max() <= 0.5
    assert abs(ours.mean() - IMAGES[0].mean()) < 0.6


@settings(max_examples=300, deadline=None)
@given(st.floats(-60_000, 60_000, width=32))
def test_casts_round_like_torch(value: float):
    as_bits = np.array([value], np.float32).view(np.uint32)
    with np.errstate(over="ignore"):
        ours = np.array([pixel.bfloat16_bits(as_bits[0]), pixel.float16_bits(as_bits[0])]).astype(np.uint16)
    tensor = torch.tensor([value])
    assert ours[0] == tensor.bfloat16().view(torch.int16).numpy().view(np.uint16)[0]
    if abs(value) >= 2**-14:
        assert ours[1] == tensor.half().view(torch.int16).numpy().view(np.uint16)[0]
    else:
        assert ours[1] & 0x7FFF == 0


def test_the_product_in_normalisation_is_exact():
    """So a fused multiply-add and two operations give the same result."""
    scale = pixel.rounded_scale(np.array(STD))
    for value in range(256):
        assert np.float64(np.float32(value) * scale[0]) == np.float64(value) * np.float64(scale[0])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"images": IMAGES.astype(np.float32)}, "images.*float32"),
        ({"images": IMAGES[:, :, :31]}, r"images.*\(40, 32, 31, 3\)"),
        ({"indices": np.array([0, 40])}, "indices.*40"),
        ({"indices": np.array([-1, 3])}, "indices.*-1"),
        ({"sample_ids": np.array([0.0, 1.0])}, "sample_ids.*float64"),
        ({"sample_ids": np.array([0])}, r"sample_ids.*\(1,\)"),
        ({"sample_ids": np.array([0, -5])}, "sample_ids.*-5"),
        ({"size": 33}, "size is 33"),
        ({"size": 0}, "size is 0"),
    ],
)
def test_inputs_the_kernel_cannot_handle_are_rejected(change: dict, text: str):
    arguments = {"images": IMAGES, "indices": np.array([0, 1]), "sample_ids": np.array([0, 1]), "epoch": 0} | change
    with pytest.raises(UserError, match=text):
        Transform(AugmentConfig(), MEAN, STD)(**arguments)


def test_bad_normalisation_is_rejected():
    with pytest.raises(UserError, match=r"std_01.*0\.0"):
        Transform(AugmentConfig(), MEAN, (0.2, 0.0, 0.2))
    with pytest.raises(UserError, match="int32"):
        Transform(AugmentConfig(), MEAN, STD, dtype=torch.int32)
