"""Pickled batches are read exactly; pickles that want to run or allocate something are refused."""

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_files import Files, python2_batch, python2_meta, read, write_tar

from fastcifar.data.sources.pickled_batch import read_batch, read_class_names
from fastcifar.errors import UserError

ROWS = (np.arange(2 * 3072) % 251).astype(np.uint8).reshape(2, 3072)


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_cannot_run_anything(protocol: int, tmp_path: Path) -> None:
    content = pickle.dumps({"data": _Evil(tmp_path / "ran"), "labels": []}, protocol)
    with pytest.raises(UserError, match=r"posix\.mkdir" if protocol >= 2 else "data_batch_1"):
        read_batch("data_batch_1", content)
    assert not (tmp_path / "ran").exists()


def test_refused_global_is_named_with_its_file(python_files: Files, tmp_path: Path) -> None:
    files = {**python_files, "data_batch_2": b"cbuiltins\neval\n(U\x031+1tR."}
    with pytest.raises(UserError, match=r"mine\.tar\.gz: data_batch_2 .*builtins\.eval"):
        read(write_tar(tmp_path / "mine.tar.gz", files))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.", id="array-of-2-gigabytes"),
        pytest.param(b"cnumpy\ndtype\n(U\x02O8tR.", id="dtype-of-objects"),
        pytest.param(b"cnumpy.core.multiarray\n_reconstruct\n(K\x01K\x02K\x03tR.", id="reconstruct-of-integers"),
        pytest.param(b"\x80\x02Nr\xff\xff\xff\xff.", id="memo-index"),
        pytest.param(
            b"\x80\x04\x95\x08\0\0\0\0\0\0\0T\x06\0\0\0abcdefU\x08xNr\xff\xff\xff\xff.\x86.",
            id="hidden-by-a-frame",
        ),
        pytest.param(b"\x80\x02})" + b"\x85" * 100_000 + b"Ns.", id="deep-tuple-as-key"),
        pytest.param(b"\x80\x02)Nbq\x00h\x00.", id="tuple-shared-behind-build"),
        pytest.param(b"\x80\x02cnumpy\ndtype\nN}X\x01\0\0\0aK\x01s\x86b.", id="attribute-of-a-stand-in"),
        pytest.param(b"\x80\x02](" + b"\x8a\x08" + b"\x7f" * 8 + b"\x8a\x00" * 100 + b"e.", id="many-long-integers"),
        pytest.param(b"\x80\x02](" + b"N" * 1_000_000 + b"e.", id="many-opcodes"),
    ],
)
def test_what_a_restricted_find_class_would_let_through(content: bytes) -> None:
    with pytest.raises(UserError, match=r"^b is not a CIFAR-10 batch"):
        read_batch("b", content)


@pytest.mark.parametrize("protocol", [None, 3, 4])
def test_contents_of_a_batch(protocol: int | None) -> None:
    again = {"data": ROWS, "labels": [7, 1], "filenames": ["a.png", "b.png"]}
    content = python2_batch(ROWS, [7, 1]) if protocol is None else pickle.dumps(again, protocol)
    found, labels = read_batch("b", content)
    np.testing.assert_array_equal(found, ROWS)
    assert (found.dtype, labels.dtype, labels.tolist()) == (np.uint8, np.int64, [7, 1])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (python2_batch(ROWS, [1]), "2 images and 1 labels"),
        (python2_batch(ROWS[:, :3071].copy(), [1, 2]), "3071"),
        (python2_batch(ROWS[0], [1]), r"\(3072,\)"),
        (python2_batch(ROWS, [1, 2]).replace(struct.pack("<i", 3072), struct.pack("<i", -3072)), "-3072"),
        (python2_batch(ROWS, [1, 2]).replace(b"U\x06labels", b"U\x06lebals"), "`labels`"),
        (python2_batch(ROWS, [1, 2])[:-100], "damaged"),
        (pickle.dumps({"labels": [1]}, 2), "`data`"),
        (pickle.dumps([1], 2), "a list"),
        (b"", "damaged"),
    ],
)
def test_bad_batch(content: bytes, text: str) -> None:
    with pytest.raises(UserError, match=f"^b.*{text}"):
        read_batch("b", content)


def test_class_names() -> None:
    assert read_class_names("m", pickle.dumps({"label_names": ["a", "b"]}, 2)) == ("a", "b")
    assert read_class_names("m", python2_meta([b"a", b"b"])) == ("a", "b")
    for value in ({}, {"label_names": ["a"]}, {"label_names": ["a", "a"]}, {"label_names": ["a", 3]}):
        with pytest.raises(UserError, match=r"^m: `label_names`"):
            read_class_names("m", pickle.dumps(value, 2))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_damaged_pickle_is_refused_or_read(data: st.DataObject) -> None:
    damaged = bytearray(python2_batch(ROWS[:1], [5]))
    outside_pixels = st.one_of(st.integers(0, 220), st.integers(220 + 3000, len(damaged) - 1))
    for position in data.draw(st.lists(outside_pixels, min_size=1, max_size=4)):
        damaged[position] = data.draw(st.integers(0, 255))
    try:
        rows, labels = read_batch("b", bytes(damaged))
    except UserError as error:
        text = str(error)
    else:
        text = ""
        assert rows.shape == (len(labels), 3072)
    assert "\n" not in text
