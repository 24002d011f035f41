"""Archives that are cut short, lead outside, or are bombs; pickles that want to run something."""

import io
import os
import pickle
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcifar.data.sources import members
from fastcifar.data.sources.batch_pickle import read_batch, read_class_names
from fastcifar.data.sources.detect import open_source
from fastcifar.errors import UserError

Files = dict[str, bytes]


def read(path: Path) -> Any:
    return open_source(path).read(False)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
@pytest.mark.parametrize("keep", [0.2, 0.9, 0.999])
def test_truncated_tar(mode: str, keep: float, python_files: Files, write_tar: Callable, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "cut.archive", python_files, mode)
    content = path.read_bytes().rstrip(b"\0") if mode == "w" else path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(UserError, match=r"cut\.archive is damaged or cut short: "):
        read(path)


def test_tar_cut_between_two_members(tree_files: Files, write_tar: Callable, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "cut.tar", tree_files, "w")
    with tarfile.open(path) as tar:
        ends = [member.offset for member in tar.getmembers()]
    path.write_bytes(path.read_bytes()[: ends[-3]])
    with pytest.raises(UserError, match="it ends without the mark of its end"):
        read(path)


def test_truncated_or_damaged_zip(tree_files: Files, write_zip: Callable, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "cut.zip", tree_files)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"cut\.zip is damaged or cut short: "):
        read(path)
    middle = len(content) // 3
    path.write_bytes(content[:middle] + bytes(1000) + content[middle + 1000 :])
    with pytest.raises(UserError, match=r"is damaged or cut short|cannot be"):
        read(path)


@pytest.mark.parametrize(
    "name", ["../evil.png", "train/../../evil.png", "/etc/passwd", "C:\\train\\cat\\1.png", "..\\x"]
)
def test_names_that_lead_out(name: str, write_tar: Callable, write_zip: Callable, tmp_path: Path) -> None:
    for path in (write_tar(tmp_path / "a.tar", {name: b"x"}, "w"), write_zip(tmp_path / "a.zip", {name: b"x"})):
        with pytest.raises(UserError, match=r"refused member .*: its name leads out of the archive"):
            read(path)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (tarfile.SYMTYPE, "it is a link"),
        (tarfile.LNKTYPE, "it is a link"),
        (tarfile.CHRTYPE, "it is not a regular file"),
        (tarfile.BLKTYPE, "it is not a regular file"),
        (tarfile.FIFOTYPE, "it is not a regular file"),
    ],
)
def test_links_and_devices(kind: bytes, text: str, write_tar: Callable, tmp_path: Path) -> None:
    info = tarfile.TarInfo("train/cat/1.png")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(UserError, match=rf"refused member 'train/cat/1\.png': {text}"):
        read(write_tar(tmp_path / "links.tar.gz", {}, extra=(info,)))


def test_link_in_a_zip(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("train/cat/1.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "links.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="it is a link"):
        read(tmp_path / "links.zip")


def test_bomb_in_one_member(write_tar: Callable, write_zip: Callable, tmp_path: Path) -> None:
    bomb = {"train/cat/1.png": bytes((64 << 20) + 1)}
    for path in (write_tar(tmp_path / "bomb.tar.gz", bomb), write_zip(tmp_path / "bomb.zip", bomb)):
        assert path.stat().st_size < 1 << 20
        with pytest.raises(UserError, match="67108865 bytes, expected at most 67108864"):
            read(path)


def test_bomb_of_many_members(write_tar: Callable, write_zip: Callable, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(members, "MAX_TOTAL_BYTES", 1 << 24)
    many = {f"x{index}": bytes(1 << 20) for index in range(20)}
    with pytest.raises(UserError, match="more than 0 GiB when unpacked"):
        read(write_zip(tmp_path / "many.zip", many))
    with pytest.raises(UserError, match="more than 0 GiB when unpacked"):
        read(write_tar(tmp_path / "many.tar.gz", many))


def test_bomb_in_a_header(tmp_path: Path) -> None:
    path = tmp_path / "header.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a")
        info.pax_headers = {"comment": "x" * (2 << 20)}
        tar.addfile(info)
    with pytest.raises(UserError, match=r"refused: a header of .* bytes, expected at most 1048576"):
        read(path)


def test_headers_within_headers(write_tar: Callable, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "long.tar", {"x" * 300: b"x"}, "w")
    path.write_bytes(path.read_bytes()[:1024] * 500)  # the header of a long name describes the next one
    with pytest.raises(UserError, match=r"long\.tar cannot be read: maximum recursion depth exceeded"):
        read(path)


def test_encrypted_zip(tmp_path: Path, write_zip: Callable) -> None:
    path = write_zip(tmp_path / "secret.zip", {"train/cat/1.png": b"x"})
    content = bytearray(path.read_bytes())
    for signature, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(signature) + at] |= 1  # the flag that says so
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"secret\.zip cannot be read: .*password"):
        read(path)


def test_nothing_is_written(python_files: Files, write_tar: Callable, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "mine.tar.gz", python_files)
    read(path)
    assert list(tmp_path.iterdir()) == [path]


# ---- pickles


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_cannot_run_anything(protocol: int, tmp_path: Path) -> None:
    content = pickle.dumps({"data": _Evil(tmp_path / "ran"), "labels": []}, protocol)
    with pytest.raises(UserError, match=r"the pickle asks for posix\.mkdir, which no CIFAR-10 batch needs; refused"):
        read_batch("data_batch_1", content)
    assert not (tmp_path / "ran").exists()


def test_refused_global_is_named_with_its_file(python_files: Files, write_tar: Callable, tmp_path: Path) -> None:
    files = {**python_files, "data_batch_2": b"cbuiltins\neval\n(U\x031+1tR."}
    with pytest.raises(UserError, match=r"mine\.tar\.gz: data_batch_2: the pickle asks for builtins\.eval"):
        read(write_tar(tmp_path / "mine.tar.gz", files))


def test_allowed_names_do_nothing_else() -> None:
    for content in (
        b"cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.",  # an array of two thousand million bytes
        b"cnumpy\ndtype\n(U\x02O8tR.",  # of objects
        b"cnumpy.core.multiarray\n_reconstruct\n(K\x01K\x02K\x03tR.",
    ):
        with pytest.raises(UserError, match="is no batch of CIFAR-10, or damaged"):
            read_batch("b", content)


def test_forged_memo_index_costs_nothing() -> None:
    with pytest.raises(UserError, match="is no batch"):
        read_batch("b", b"\x80\x02Nr\xff\xff\xff\xff.")


def test_contents_of_a_batch(make_batch: Callable) -> None:
    rows = np.arange(2 * 3072, dtype=np.uint32).astype(np.uint8).reshape(2, 3072)
    found, labels = read_batch("b", make_batch(rows, [7, 1]))
    np.testing.assert_array_equal(found, rows)
    assert labels.tolist() == [7, 1]
    for content, text in (
        (make_batch(rows, [1]), "2 images and 1 labels"),
        (make_batch(rows[:, :3071], [1, 2]), "rows of 3071 bytes, expected 3072"),
        (make_batch(rows[0], [1]), "the pixels are not a table of bytes"),
        (pickle.dumps({"labels": [1]}, 2), "its `data` is NoneType, expected an array"),
        (pickle.dumps([1], 2), "it holds a list, expected a dict"),
        (b"", "is no batch of CIFAR-10"),
        (make_batch(rows, [1, 2])[:-100], "is no batch of CIFAR-10"),
        (make_batch(rows, [1, 2]).replace(b"U\x06labels", b"U\x06lebals"), "its `labels` are no list"),
        (make_batch(rows, [1, 2]).replace(struct.pack("<i", 3072), struct.pack("<i", -3072)), "rows of -3072 bytes"),
    ):
        with pytest.raises(UserError) as caught:
            read_batch("b", content)
        assert text in str(caught.value), caught.value


def test_class_names_of_a_pickle() -> None:
    assert read_class_names("m", pickle.dumps({"label_names": ["a", "b"]}, 2)) == ("a", "b")
    for value in ({}, {"label_names": ["a"]}, {"label_names": ["a", "a"]}, {"label_names": ["a", 3]}):
        with pytest.raises(UserError, match="its `label_names` are"):
            read_class_names("m", pickle.dumps(value, 2))


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_any_damaged_pickle_is_refused_or_read(data: st.DataObject, make_batch: Callable) -> None:
    whole = make_batch(np.zeros((1, 3072), np.uint8), [5])
    outer = st.one_of(st.integers(0, 220), st.integers(220 + 3000, len(whole) - 1))
    damaged = bytearray(whole)
    for position in data.draw(st.lists(outer, min_size=1, max_size=4)):
        damaged[min(position, len(whole) - 1)] = data.draw(st.integers(0, 255))
    try:
        rows, labels = read_batch("b", bytes(damaged))
    except UserError as error:
        text = str(error)
    else:
        text = ""
        assert rows.shape == (len(labels), 3072)
    assert "\n" not in text


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_damaged_archive_is_refused_or_read(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    buffer = io.BytesIO()
    kind = data.draw(st.sampled_from(["tar", "gz", "zip"]))
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("train/cat/readme", b"hello " * 50)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz" if kind == "gz" else "w", format=tarfile.PAX_FORMAT) as tar:
            info = tarfile.TarInfo("train/cat/readme" + "x" * 120)
            info.size = 300
            tar.addfile(info, io.BytesIO(b"hello " * 50))
    content = bytearray(buffer.getvalue())
    end = len(content) if kind != "tar" else 3000
    for position in data.draw(st.lists(st.integers(4, end - 1), min_size=1, max_size=4)):
        content[min(position, len(content) - 1)] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged-archive"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:  # there is no image in it, so it is refused either way
        read(path)
    assert "\n" not in str(caught.value)
