"""The compiled kernel against the plain reference, bit for bit, and both against torch and torchvision."""

import itertools
from collections import Counter

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from fastcifar.augment import pixel, reference
from fastcifar.augment.transform import KINDS, Transform
from fastcifar.config import NO_AUGMENTATION, AugmentConfig
from fastcifar.errors import UserError
from fastcifar.rng import Purpose, stream_key

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in KINDS}


def bits(batch: torch.Tensor) -> np.ndarray:
    nhwc = batch.permute(0, 2, 3, 1)
    assert nhwc.is_contiguous()
    if nhwc.element_size() == 4:
        return nhwc.view(torch.int32).numpy().view(np.uint32)
    return nhwc.view(torch.int16).numpy().view(np.uint16)


def expected(transform: Transform, row: int, sample: int, epoch: int, size: int, dtype: str) -> np.ndarray:
    return reference.augment_one(
        IMAGES[row], transform.config, transform.scale, transform.bias,
        seed=transform.seed, epoch=epoch, sample=sample, size=size, dtype=dtype,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("pad_mode", "flip", "small"),
    list(itertools.product(("zero", "reflect"), ("none", "random", "alternating"), ("area", "crop"))),
)
def test_kernel_equals_reference_for_every_option(dtype: str, pad_mode, flip, small):
    for pad, cutout, size in ((0, 0, 32), (4, 8, 32), (4, 7, 20), (16, 32, 16), (2, 0, 24), (4, 8, 1), (1, 1, 31)):
        config = AugmentConfig(pad=pad, pad_mode=pad_mode, flip=flip, cutout=cutout, small=small)
        transform = Transform(config, MEAN, STD, seed=5, dtype=DTYPES[dtype])
        rows, samples = np.array([0, 7, 39, 7]), np.array([0, 49_999, 3, 2**62])
        batch = bits(transform(IMAGES, rows, samples, 3, size))
        for i in range(len(rows)):
            wanted = expected(transform, rows[i], int(samples[i]), 3, size, dtype)
            assert np.array_equal(batch[i], wanted), (config, size)


@settings(max_examples=150, deadline=None)
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
    sample=st.integers(0, 2**60),
    size=st.integers(1, 32),
    dtype=st.sampled_from(sorted(DTYPES)),
)
def test_kernel_equals_reference_anywhere(config, seed, epoch, sample, size, dtype):
    transform = Transform(config, MEAN, STD, seed=seed, dtype=DTYPES[dtype])
    batch = transform(IMAGES, np.array([1]), np.array([sample]), epoch, size)
    assert np.array_equal(bits(batch)[0], expected(transform, 1, sample, epoch, size, dtype))


def test_same_images_for_any_batch_size_order_and_thread_count():
    transform = Transform(AugmentConfig(), MEAN, STD, seed=1)
    rows = np.arange(len(IMAGES))
    whole = transform(IMAGES, rows, rows, 2)
    assert torch.equal(
        torch.cat([transform(IMAGES, rows[i : i + 7], rows[i : i + 7], 2) for i in range(0, 40, 7)]), whole
    )
    assert torch.equal(transform(IMAGES, rows[::-1].copy(), rows[::-1].copy(), 2).flip(0), whole)
    before = numba.get_num_threads()
    try:
        for threads in range(1, before + 1):
            numba.set_num_threads(threads)
            assert torch.equal(transform(IMAGES, rows, rows, 2), whole)
    finally:
        numba.set_num_threads(before)


def test_batches_are_channels_last_and_fresh():
    transform = Transform(AugmentConfig(), MEAN, STD)
    rows = np.arange(4)
    first, second = transform(IMAGES, rows, rows, 0), transform(IMAGES, rows, rows, 1)
    assert first.shape == (4, 3, 32, 32)
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert first.data_ptr() != second.data_ptr()
    assert transform(IMAGES, rows[:0], rows[:0], 0).shape == (0, 3, 32, 32)


def test_every_crop_is_drawn_and_none_is_favoured():
    marked = np.zeros((1, 32, 32, 3), np.uint8)
    marked[0, 16, 16] = 255  # a single white pixel shows where the crop was
    transform = Transform(AugmentConfig(pad=2, flip="none", cutout=0), (0.0,) * 3, (1.0,) * 3)
    samples = np.arange(25_000)
    batch = transform(marked, np.zeros(len(samples), np.int64), samples, 0)
    counts = (batch[:, 0] > 0.5).sum(0)[14:19, 14:19]
    assert counts.sum() == len(samples)
    assert (counts - 1000).abs().max() < 5 * 1000**0.5


def test_random_flip_is_a_fair_coin_each_epoch_and_alternating_flips_every_other():
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[None, None, :, None], (1, 32, 32, 3)).copy()
    samples = np.arange(10_000)

    def flipped(mode, epoch: int) -> torch.Tensor:
        transform = Transform(AugmentConfig(pad=0, flip=mode, cutout=0), (0.0,) * 3, (1.0,) * 3)
        batch = transform(ramp, np.zeros(len(samples), np.int64), samples, epoch)
        return batch[:, 0, 0, 0] > batch[:, 0, 0, 31]

    first, second = flipped("random", 0), flipped("random", 1)
    assert abs(first.float().mean() - 0.5) < 0.025
    assert abs((first == second).float().mean() - 0.5) < 0.025  # independent from epoch to epoch
    once, again = flipped("alternating", 0), flipped("alternating", 1)
    assert abs(once.float().mean() - 0.5) < 0.025
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


def test_plain_images_agree_with_torchvision():
    transform = Transform(NO_AUGMENTATION, MEAN, STD)
    rows = np.arange(len(IMAGES))
    theirs = tv.normalize(
        tv.to_dtype(torch.from_numpy(IMAGES).permute(0, 3, 1, 2), torch.float32, scale=True), list(MEAN), list(STD)
    )
    torch.testing.assert_close(transform(IMAGES, rows, rows, 0), theirs, rtol=0, atol=6e-5)


@pytest.mark.parametrize(("mode", "theirs"), [("zero", "constant"), ("reflect", "reflect")])
def test_a_crop_is_one_of_torchvisions(mode, theirs):
    transform = Transform(AugmentConfig(pad=4, pad_mode=mode, flip="none", cutout=0), (0.0,) * 3, (1.0,) * 3)
    ours = (transform(IMAGES[:1], np.zeros(9, np.int64), np.arange(9), 0) * 255).round().to(torch.uint8)
    padded = tv.pad(torch.from_numpy(IMAGES[:1]).permute(0, 3, 1, 2), [4], padding_mode=theirs)[0]
    crops = {padded[:, y : y + 32, x : x + 32].numpy().tobytes() for y in range(9) for x in range(9)}
    assert all(image.contiguous().numpy().tobytes() in crops for image in ours)


@pytest.mark.parametrize(("mode", "theirs"), [("zero", "constant"), ("reflect", "reflect")])
def test_small_crops_are_all_windows_of_the_padded_image_and_none_is_favoured(mode, theirs):
    config = AugmentConfig(pad=1, pad_mode=mode, flip="none", cutout=0, small="crop")
    samples = np.arange(49_000)
    batch = Transform(config, (0.0,) * 3, (1.0,) * 3)(IMAGES[:1], np.zeros(len(samples), np.int64), samples, 0, 28)
    ours = (batch * 255).round().to(torch.uint8).contiguous().flatten(1).numpy()
    padded = tv.pad(torch.from_numpy(IMAGES[:1]).permute(0, 3, 1, 2), [1], padding_mode=theirs)[0]
    windows = [padded[:, y : y + 28, x : x + 28].numpy().tobytes() for y in range(7) for x in range(7)]
    drawn = Counter(image.tobytes() for image in ours)
    assert set(drawn) == set(windows)
    assert max(abs(count - 1000) for count in drawn.values()) < 5 * 1000**0.5


def test_both_ways_to_small_images_are_the_same_at_32():
    rows = np.arange(len(IMAGES))
    area, crop = (Transform(AugmentConfig(small=small), MEAN, STD)(IMAGES, rows, rows, 1) for small in ("area", "crop"))
    assert torch.equal(area, crop)


@pytest.mark.parametrize("size", [16, 20, 24, 32])
def test_smaller_images_are_area_averages(size: int):
    ours = reference.area_average(IMAGES[0], size)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(IMAGES[:1]).permute(0, 3, 1, 2).double(), size=(size, size), mode="area"
    )
    if 32 % size == 0:  # torch's "area" averages whole pixels, which is the same only then
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


def test_normalising_is_exact_whether_or_not_it_is_fused():
    """The product of a pixel value and the scale has one rounding to lose: none."""
    scale = pixel.rounded_scale(np.array(STD))
    for value in range(256):
        assert np.float64(np.float32(value) * scale[0]) == np.float64(value) * np.float64(scale[0])


def test_keys_differ_between_crop_and_flip():
    assert stream_key(3, Purpose.AUGMENT, 1) != stream_key(3, Purpose.FLIP, 1)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"images": IMAGES.astype(np.float32)}, "images must be uint8 (n, 32, 32, 3), got float32 (40, 32, 32, 3)"),
        ({"images": IMAGES[:, :, :31]}, "images must be uint8 (n, 32, 32, 3), got uint8 (40, 32, 31, 3)"),
        ({"rows": np.array([0, 40])}, "rows reach from 0 to 40, but there are 40 images"),
        ({"rows": np.array([-1, 3])}, "rows reach from -1 to 3"),
        ({"samples": np.array([0.0, 1.0])}, "samples must be int64 (2,), got float64 (2,)"),
        ({"samples": np.array([0])}, "samples must be int64 (2,), got int64 (1,)"),
        ({"samples": np.array([0, -5])}, "samples must not be negative, got -5"),
        ({"size": 33}, "the output size is 33, but must be between 1 and 32"),
        ({"size": 0}, "the output size is 0"),
    ],
)
def test_what_the_kernel_could_not_bear_is_refused(change: dict, text: str):
    arguments = {
        "images": IMAGES,
        "rows": np.array([0, 1]),
        "samples": np.array([0, 1]),
        "epoch": 0,
        "size": 32,
    } | change
    with pytest.raises(UserError) as caught:
        Transform(AugmentConfig(), MEAN, STD)(**arguments)
    assert text in str(caught.value)


def test_bad_normalisation_is_refused():
    with pytest.raises(UserError, match="standard deviation of every channel must be above 0"):
        Transform(AugmentConfig(), MEAN, (0.2, 0.0, 0.2))
    with pytest.raises(UserError, match=r"cannot be cast to torch\.int32"):
        Transform(AugmentConfig(), MEAN, STD, dtype=torch.int32)
