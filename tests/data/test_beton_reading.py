"""The beton reader agrees with FFCV's and refuses every file that is not a valid beton."""

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fastcifar.data import prepared as prepared_module
from fastcifar.data.beton_format import read_beton
from fastcifar.data.prepared import RawSet, load_manifest, read_split
from fastcifar.errors import UserError

PAGE = 1 << 21
Beton = tuple[bytes, np.ndarray, np.ndarray]
fixture_is_read_only = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FFCV_READS = """
import sys, numpy as np
from ffcv.loader import Loader, OrderOption
from ffcv.fields.decoders import SimpleRGBImageDecoder, IntDecoder
pipelines = {"image": [SimpleRGBImageDecoder()], "label": [IntDecoder()]}
loader = Loader(sys.argv[1], batch_size=64, num_workers=1, order=OrderOption.SEQUENTIAL, drop_last=False,
                os_cache=True, pipelines=pipelines)
batches = [(images.copy(), labels.copy()) for images, labels in loader]
np.savez(sys.argv[2], images=np.concatenate([b[0] for b in batches]), labels=np.concatenate([b[1] for b in batches]))
"""


def test_read_split_gives_the_images_that_were_written(written: Path, small_set: RawSet) -> None:
    images, labels = read_split(written, "train")
    assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
    assert images.flags.c_contiguous
    np.testing.assert_array_equal(images, small_set.train.images_nhwc)
    np.testing.assert_array_equal(labels, small_set.train.labels)


def test_ffcv_reads_the_same(written: Path, tmp_path: Path) -> None:
    target = tmp_path / "ffcv.npz"
    command = [sys.executable, "-c", FFCV_READS, str(written / "test.beton"), str(target)]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}  # compiling takes longer than 50 images
    subprocess.run(command, check=True, timeout=120, capture_output=True, env=environment)
    images, labels = read_split(written, "test")
    with np.load(target) as ffcv:
        np.testing.assert_array_equal(images, ffcv["images"])
        np.testing.assert_array_equal(labels, ffcv["labels"].reshape(-1))


def test_ffcv_writes_the_documented_layout(written: Path, small_set: RawSet, encode: Callable[..., bytes]) -> None:
    for name in ("train", "test"):
        split = small_set.split(name)
        assert (written / f"{name}.beton").read_bytes() == encode(split.images_nhwc, split.labels)


def test_several_pages_in_any_order(tmp_path: Path, encode: Callable[..., bytes]) -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (1500, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 10, 1500)
    beton = bytearray(encode(images, labels, page=PAGE))
    # swap the data of samples, as FFCV does with two workers
    for first, second in ((0, 1400), (700, 3)):
        for base, column in ((2106, 5), (struct.unpack_from("<Q", beton, 16)[0], 8)):
            a, b = base + 24 * first + column, base + 24 * second + column
            beton[a : a + 8], beton[b : b + 8] = beton[b : b + 8], beton[a : a + 8]
        images[[first, second]] = images[[second, first]]
    path = tmp_path / "two.beton"
    path.write_bytes(beton)
    found, found_labels = read_beton(path)
    np.testing.assert_array_equal(found, images)
    np.testing.assert_array_equal(found_labels, labels)


@pytest.fixture(scope="module")
def tiny(encode: Callable[..., bytes]) -> Beton:
    rng = np.random.default_rng(2)
    images, labels = rng.integers(0, 256, (5, 32, 32, 3), np.uint8), np.arange(5)
    return encode(images, labels, page=PAGE), images, labels


TABLE = 2 * PAGE  # offset of the allocation table of `tiny`
SIZE = TABLE + 5 * 24
METADATA = 2106
OVERWRITTEN = [  # offset, new bytes, what the error names
    (0, b"hello world " * 400, "version is 25960"),
    (0, b"\3", "version is 3"),
    (2, b"\3", "fields is 3"),
    (4, b"\1\0\0\0", "page size is 1"),
    (8, b"\6", "size is"),
    (8, bytes(8), "table offset is"),  # no samples
    (8, b"\xff" * 8, "table offset is"),  # 2**64 - 1 samples
    (16, bytes(8), "table offset is 0"),  # an unfinished write
    (24, b"\5", "fields"),  # type of a field
    (25, b"x", "fields"),  # name of a field
    (100, b"x", "argument block"),
    (METADATA, b"\0", "mode of sample 0 is 0"),  # JPEG
    (METADATA + 1, b"\x1f", "width of sample 0 is 31"),
    (METADATA + 3, b"\x21", "height of sample 0 is 33"),
    (METADATA + 5, bytes(8), "data offset of sample 0 is 0"),
    (METADATA + 5, b"\xff" * 8, "data offset of sample 0 is"),
    (METADATA + 5, struct.pack("<Q", PAGE + 3072), "overlapping"),
    (METADATA + 16, b"\xff" * 8, "label of sample 0 is -1"),
    (TABLE, b"\1", "sample number in the table"),
    (TABLE + 8, b"\1", "offset in the table of sample 0"),
    (TABLE + 16, b"\1", "size in the table of sample 0"),
]


@pytest.mark.parametrize(("offset", "new", "named"), OVERWRITTEN)
def test_damage_is_named(offset: int, new: bytes, named: str, tiny: Beton, tmp_path: Path) -> None:
    path = tmp_path / "damaged.beton"
    path.write_bytes(tiny[0][:offset] + new + tiny[0][offset + len(new) :])
    with pytest.raises(UserError) as caught:
        read_beton(path)
    assert str(path) in str(caught.value)
    assert named in str(caught.value)


# Most of a beton is padding: half of the flips go where the numbers are.
_POSITIONS = st.one_of(st.integers(0, METADATA + 5 * 24), st.integers(0, SIZE - 1))
_FLIPS = st.lists(st.tuples(_POSITIONS, st.integers(1, 255)), min_size=1, max_size=3)


@example(flips=[], size=0)
@example(flips=[], size=SIZE - 1)
@example(flips=[], size=SIZE + 1)
@settings(fixture_is_read_only, max_examples=200)
@given(flips=_FLIPS, size=st.integers(0, SIZE - 1) | st.just(SIZE) | st.integers(SIZE, SIZE + 200))
def test_any_damage_is_refused_or_harmless(
    flips: list[tuple[int, int]], size: int, tiny: Beton, tmp_path: Path
) -> None:
    whole, images, labels = tiny
    damaged = bytearray(whole.ljust(size, b"\0"))
    for position, mask in flips:
        damaged[position] ^= mask
    path = tmp_path / "flipped.beton"
    path.write_bytes(damaged[:size])
    try:
        found, found_labels = read_beton(path)
    except UserError:
        return
    assert size == SIZE
    data = range(PAGE, PAGE + 5 * 3072)  # only the SHA-256 protects pixels and labels
    label_bytes = {METADATA + 24 * sample + 16 + byte for sample in range(5) for byte in range(8)}
    if not any(position in data for position, _ in flips):
        np.testing.assert_array_equal(found, images)
    if not any(position in label_bytes for position, _ in flips):
        np.testing.assert_array_equal(found_labels, labels)


@settings(fixture_is_read_only, max_examples=20)
@given(position=st.integers(0, 20_000_000), mask=st.integers(1, 255))
def test_a_checked_split_is_refused_for_any_flip(position: int, mask: int, prepared: Path) -> None:
    path = prepared / "test.beton"
    intact = path.read_bytes()
    damaged = bytearray(intact)
    damaged[position % len(damaged)] ^= mask
    try:
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"test\.beton"):
            read_split(prepared, "test")
    finally:
        path.write_bytes(intact)


def test_a_manifest_of_another_file_is_noticed(prepared: Path) -> None:
    text = (prepared / "manifest.json").read_text()
    (prepared / "manifest.json").write_text(text.replace('"samples": 50\n', '"samples": 51\n'))
    with pytest.raises(UserError, match=r"50 samples.* 51"):
        read_split(prepared, "test")
    names = list(load_manifest(prepared).class_names)
    (prepared / "manifest.json").write_text(text.replace(f',\n    "{names[-1]}"', ""))
    with pytest.raises(UserError, match=r"label 9.* 9 classes"):
        read_split(prepared, "test")


def test_a_file_replaced_while_it_is_read_is_refused(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_and_replace(path: Path) -> tuple[np.ndarray, np.ndarray]:
        (prepared / "new").write_bytes(path.read_bytes())
        (prepared / "new").rename(path)
        return read_beton(path)

    monkeypatch.setattr(prepared_module, "read_beton", read_and_replace)
    with pytest.raises(UserError, match=r"test\.beton was replaced"):
        read_split(prepared, "test")
