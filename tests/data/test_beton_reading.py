"""The reader of betons: equal to FFCV's own, and refuses whatever is not one."""

import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastcifar.data import prepared as beton
from fastcifar.data.beton_format import read_beton
from fastcifar.data.prepared import RawSet, load_manifest, read_split
from fastcifar.errors import UserError

SMALL_PAGE = 1 << 21
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
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert images.flags.c_contiguous
    np.testing.assert_array_equal(images, small_set.train.images_nhwc)
    np.testing.assert_array_equal(labels, small_set.train.labels)


def test_ffcv_loads_the_same(written: Path, tmp_path: Path) -> None:
    target = tmp_path / "ffcv.npz"
    command = [sys.executable, "-c", FFCV_READS, str(written / "test.beton"), str(target)]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    images, labels = read_split(written, "test")
    with np.load(target) as ffcv:
        np.testing.assert_array_equal(images, ffcv["images"])
        np.testing.assert_array_equal(labels, ffcv["labels"].reshape(-1))


def test_ffcv_and_the_drawing_agree(written: Path, small_set: RawSet, encode: Callable[..., bytes]) -> None:
    for name in ("train", "test"):
        split = small_set.split(name)
        assert (written / f"{name}.beton").read_bytes() == encode(split.images_nhwc, split.labels)


def test_several_pages_in_any_order(tmp_path: Path, encode: Callable[..., bytes]) -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (1500, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 10, 1500)
    beton = bytearray(encode(images, labels, page=SMALL_PAGE))
    # what two of FFCV's workers make: samples whose data lie in each other's places
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


def test_images_are_read_fast(tmp_path: Path, encode: Callable[..., bytes]) -> None:
    images = np.zeros((20_000, 32, 32, 3), np.uint8)
    path = tmp_path / "large.beton"
    path.write_bytes(encode(images, np.zeros(20_000, np.int64)))
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        read_beton(path)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.2  # 0.02 s alone on 2 cores


@pytest.fixture(scope="module")
def tiny(encode: Callable[..., bytes]) -> tuple[bytes, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    images, labels = rng.integers(0, 256, (5, 32, 32, 3), np.uint8), np.arange(5)
    return encode(images, labels, page=SMALL_PAGE), images, labels


TABLE = 2 * SMALL_PAGE  # where the table of the tiny beton is
DAMAGE = [
    ("empty", lambda b: b"", "the size is 0 bytes, expected at least 2106"),
    ("text", lambda b: b"hello world " * 400, "the format version is 25960, expected 2"),
    ("version", lambda b: b"\3\0" + b[2:], "the format version is 3, expected 2"),
    ("fields", lambda b: b[:2] + b"\3\0" + b[4:], "the number of fields is 3, expected 2"),
    ("page", lambda b: b[:4] + b"\1\0\0\0" + b[8:], "the page size is 1, expected a power of two"),
    ("samples", lambda b: b[:8] + b"\6" + b[9:], "the size is"),
    ("no samples", lambda b: b[:8] + bytes(8) + b[16:], "the table offset is"),
    ("many samples", lambda b: b[:8] + b"\xff" * 8 + b[16:], "the table offset is"),
    ("unfinished", lambda b: b[:16] + bytes(8) + b[24:], "the table offset is 0"),
    ("cut off", lambda b: b[:-1], "the size is"),
    ("longer", lambda b: b + b"\0", "the size is"),
    ("field type", lambda b: b[:24] + b"\5" + b[25:], "the list of fields"),
    ("field name", lambda b: b[:25] + b"x" + b[26:], "the list of fields"),
    ("jpeg", lambda b: b[:2106] + b"\0" + b[2107:], "the mode of sample 0 is 0, expected 1"),
    ("width", lambda b: b[:2107] + b"\x1f" + b[2108:], "the width of sample 0 is 31, expected 32"),
    ("height", lambda b: b[:2109] + b"\x21" + b[2110:], "the height of sample 0 is 33, expected 32"),
    ("pointer low", lambda b: b[:2111] + bytes(8) + b[2119:], "the data offset of sample 0 is 0"),
    ("pointer high", lambda b: b[:2111] + b"\xff" * 8 + b[2119:], "the data offset of sample 0 is"),
    ("overlap", lambda b: b[:2111] + b[2135:2143] + b[2119:], "the data of two samples is overlapping"),
    ("label", lambda b: b[:2122] + b"\xff" * 8 + b[2130:], "the label of sample 0 is -1, expected 0 or more"),
    ("table sample", lambda b: b[:TABLE] + b"\1" + b[TABLE + 1 :], "the sample number in the table"),
    ("table size", lambda b: b[: TABLE + 16] + b"\1" + b[TABLE + 17 :], "the size in the table of sample 0 is"),
    ("table offset", lambda b: b[: TABLE + 8] + b"\1" + b[TABLE + 9 :], "the offset in the table of sample 0 is"),
]


@pytest.mark.parametrize(("damage", "text"), [row[1:] for row in DAMAGE], ids=[row[0] for row in DAMAGE])
def test_damage_is_named(
    damage: Callable[[bytes], bytes], text: str, tiny: tuple[bytes, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "damaged.beton"
    path.write_bytes(damage(tiny[0]))
    with pytest.raises(UserError, match="not a sound beton") as caught:
        read_beton(path)
    assert text in str(caught.value)


# Most of a beton is padding: half of the flips go where the numbers are.
_POSITIONS = st.one_of(st.integers(0, 2106 + 5 * 24), st.integers(0, 2 * SMALL_PAGE + 5 * 24 - 1))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(_POSITIONS, st.integers(1, 255)), min_size=1, max_size=3), cut=st.integers(-30, 200))
def test_any_flip_is_refused_or_harmless(
    flips: list[tuple[int, int]], cut: int, tiny: tuple[bytes, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    whole, images, labels = tiny
    damaged = bytearray(whole)
    for position, mask in flips:
        damaged[position] ^= mask
    path = tmp_path / "flipped.beton"
    path.write_bytes(damaged[:cut] if cut < 0 else damaged)
    try:
        found, found_labels = read_beton(path)
    except UserError:
        return
    assert cut >= 0
    data = range(SMALL_PAGE, SMALL_PAGE + 5 * 3072)  # pixels and labels themselves: only the SHA-256 knows better
    label_bytes = {2106 + 24 * sample + 16 + byte for sample in range(5) for byte in range(8)}
    if not any(position in data for position, _ in flips):
        np.testing.assert_array_equal(found, images)
    if not any(position in label_bytes for position, _ in flips):
        np.testing.assert_array_equal(found_labels, labels)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keep=st.integers(0, 2 * SMALL_PAGE + 5 * 24 - 1))
def test_any_truncation_is_refused(keep: int, tiny: tuple[bytes, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    path = tmp_path / "cut.beton"
    path.write_bytes(tiny[0][:keep])
    with pytest.raises(UserError, match="not a sound beton"):
        read_beton(path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 20_000_000), mask=st.integers(1, 255))
def test_a_checked_split_is_refused_for_any_flip(position: int, mask: int, prepared: Path) -> None:
    path = prepared / "test.beton"
    sound = path.read_bytes()
    damaged = bytearray(sound)
    damaged[position % len(damaged)] ^= mask
    try:
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged"):
            read_split(prepared, "test")
    finally:
        path.write_bytes(sound)


def test_a_manifest_of_another_file_is_noticed(prepared: Path) -> None:
    text = (prepared / "manifest.json").read_text()
    (prepared / "manifest.json").write_text(text.replace('"samples": 50\n', '"samples": 51\n'))
    with pytest.raises(UserError, match="holds 50 samples, its manifest says 51"):
        read_split(prepared, "test")
    names = list(load_manifest(prepared).class_names)
    (prepared / "manifest.json").write_text(text.replace(f',\n    "{names[-1]}"', ""))
    with pytest.raises(UserError, match="has label 9, its manifest names 9 classes"):
        read_split(prepared, "test")


def test_a_set_replaced_while_it_is_read_is_no_mixture(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replaced(path: Path) -> tuple[np.ndarray, np.ndarray]:
        (prepared / "new").write_bytes(path.read_bytes())
        (prepared / "new").rename(path)
        return read_beton(path)

    monkeypatch.setattr(beton, "read_beton", replaced)
    with pytest.raises(UserError, match=r"test\.beton was replaced while it was being read"):
        read_split(prepared, "test")
