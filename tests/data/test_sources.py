"""Every form of a source gives the same arrays; errors name the file and the value."""

import os
from pathlib import Path

import numpy as np
import pytest
from raw_files import (
    Files,
    assert_same_set,
    png,
    prefixed,
    python2_batch,
    read,
    small_tree,
    write_folder,
    write_tar,
    write_zip,
)

from fastcifar.data.cifar10 import CONTENT_SHA256
from fastcifar.data.raw_set import RawSet, content_digest
from fastcifar.data.sources.detect import open_source
from fastcifar.errors import UserError


@pytest.mark.parametrize(
    ("suffix", "prefix"), [("tar.gz", "cifar-10-batches-py/"), ("tar", "./"), ("tar.xz", ""), ("dat", "")]
)
def test_python_archive(suffix: str, prefix: str, python_files: Files, small_set: RawSet, tmp_path: Path) -> None:
    raw = read(write_tar(tmp_path / f"mine.{suffix}", prefixed(python_files, prefix)))
    assert_same_set(raw, small_set)
    assert (raw.source.kind, raw.source.name) == ("cifar-python", f"mine.{suffix}")
    assert (raw.source.checksum or "").startswith("md5:")


def test_binary_archive(binary_files: Files, small_set: RawSet, tmp_path: Path) -> None:
    files = prefixed(binary_files, "cifar-10-batches-bin/")
    assert_same_set(read(write_tar(tmp_path / "mine.tar.gz", files)), small_set)
    assert_same_set(read(write_zip(tmp_path / "mine.zip", files)), small_set)


@pytest.mark.parametrize("files", ["python_files", "binary_files"])
def test_unpacked_folder_or_its_parent(
    files: str, request: pytest.FixtureRequest, small_set: RawSet, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "batches", request.getfixturevalue(files))
    assert_same_set(read(folder), small_set)
    assert_same_set(read(tmp_path), small_set)
    assert read(tmp_path).source.name == "batches"


def batch(*labels: int) -> bytes:
    return python2_batch(np.zeros((len(labels), 3072), np.uint8), list(labels))


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"data_batch_3": None}, "data_batch_3 is missing"),
        ({"test_batch": None}, "test_batch is missing"),
        ({"batches.meta": None}, r"batches\.meta is missing"),
        ({"again/data_batch_2": batch(1)}, "more than one data_batch_2"),
        ({"data_batch_4": batch(3, 10)}, r"data_batch_4: label 10 of row 1"),
        ({"data_batch_4": batch(3, -1)}, r"data_batch_4: label -1 of row 1"),
    ],
)
def test_bad_python_archive(changed: dict[str, bytes | None], text: str, python_files: Files, tmp_path: Path) -> None:
    files = {name: content for name, content in {**python_files, **changed}.items() if content is not None}
    with pytest.raises(UserError, match=text):
        read(write_tar(tmp_path / "mine.tar.gz", files))


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("test_batch.bin", b"\x0a" + bytes(3072), "label 10 of row 0"),
        ("data_batch_1.bin", bytes(3072), "has 3072 bytes"),
        ("batches.meta.txt", b"\xff", "ASCII"),
    ],
)
def test_bad_binary_archive(name: str, content: bytes, text: str, binary_files: Files, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{name}:? .*{text}|{name} {text}"):
        read(write_tar(tmp_path / "mine.tar.gz", {**binary_files, name: content}))


@pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "cifar-10-binary.tar.gz"])
def test_official_name_with_another_checksum(name: str, tmp_path: Path) -> None:
    path = write_tar(tmp_path / name, {"readme.txt": b"hello"})
    for source in (path, tmp_path):
        with pytest.raises(UserError, match=rf"{name} has the MD5 [0-9a-f]{{32}} .*expected c"):
            open_source(source)


def test_what_is_no_source(python_files: Files, binary_files: Files, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere does not exist"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(UserError, match=str(tmp_path)):
        open_source(tmp_path)
    (tmp_path / "text.tar.gz").write_text("hello")
    with pytest.raises(UserError, match=r"text\.tar\.gz is not an archive"):
        open_source(tmp_path / "text.tar.gz")
    with pytest.raises(UserError, match=r"other\.tar\.gz holds none"):
        read(write_tar(tmp_path / "other.tar.gz", {"readme.txt": b"hello"}))
    with pytest.raises(UserError, match="holds cifar-binary, cifar-python"):
        read(write_tar(tmp_path / "both.tar.gz", {**python_files, **binary_files}))


def test_a_broken_link_is_not_skipped(tmp_path: Path) -> None:
    write_folder(tmp_path, small_tree())
    (tmp_path / "train/cat/2.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(UserError, match=r"train/cat/2\.png .*No such file"):
        open_source(tmp_path)


def test_the_checksum_of_a_folder_follows_its_images(tmp_path: Path) -> None:
    write_folder(tmp_path, small_tree())
    first = open_source(tmp_path).checksum
    assert open_source(tmp_path).checksum == first
    (tmp_path / "train/cat/1.png").write_bytes(png((9, 9, 9)))
    assert open_source(tmp_path).checksum != first


def test_real_cifar10_is_recognised_by_its_content() -> None:
    source = os.environ.get("FASTCIFAR_SOURCE")
    if not source or not Path(source).exists():
        pytest.skip("FASTCIFAR_SOURCE names no copy of the real CIFAR-10")
    raw = read(Path(source))
    assert (len(raw.train), len(raw.test)) == (50_000, 10_000)
    assert content_digest(raw) == CONTENT_SHA256
