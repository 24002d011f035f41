"""Every form of a source gives the same arrays, and bad ones say what is wrong with them."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastcifar.data.cifar10 import CONTENT_SHA256
from fastcifar.data.prepared import RawSet
from fastcifar.data.raw_set import content_digest
from fastcifar.data.sources.detect import open_source
from fastcifar.errors import UserError

Files = dict[str, bytes]
Check = Callable[[RawSet, RawSet], None]


def read(path: Path, resize: bool = False) -> RawSet:
    return open_source(path).read(resize)


def prefixed(files: Files, prefix: str) -> Files:
    return {f"{prefix}{name}": content for name, content in files.items()}


def small_tree(image: bytes) -> Files:
    return {f"{split}/{name}/1.png": image for split in ("train", "test") for name in ("cat", "dog")}


# ---- archives and folders of CIFAR's batches


@pytest.mark.parametrize(("suffix", "mode"), [("tar.gz", "w:gz"), ("tar", "w"), ("txz", "w:xz"), ("dat", "w:gz")])
@pytest.mark.parametrize("prefix", ["cifar-10-batches-py/", "./", ""])
def test_python_archive(
    python_files: Files, small_set: RawSet, same_set: Check, write_tar: Callable, tmp_path: Path, suffix, mode, prefix
) -> None:
    raw = read(write_tar(tmp_path / f"mine.{suffix}", prefixed(python_files, prefix), mode))
    same_set(raw, small_set)
    assert (raw.source.kind, raw.source.name) == ("cifar-python", f"mine.{suffix}")
    assert raw.source.checksum is not None
    assert raw.source.checksum.startswith("md5:")


def test_binary_archive(
    binary_files: Files, small_set: RawSet, same_set: Check, write_tar: Callable, write_zip: Callable, tmp_path: Path
) -> None:
    files = prefixed(binary_files, "cifar-10-batches-bin/")
    same_set(read(write_tar(tmp_path / "mine.tar.gz", files)), small_set)
    same_set(read(write_zip(tmp_path / "mine.zip", files)), small_set)


@pytest.mark.parametrize("flavour", ["py", "bin"])
def test_unpacked_folder_or_its_parent(
    flavour: str,
    request: pytest.FixtureRequest,
    small_set: RawSet,
    same_set: Check,
    write_folder: Callable,
    tmp_path: Path,
) -> None:
    files = request.getfixturevalue("python_files" if flavour == "py" else "binary_files")
    folder = write_folder(tmp_path / f"cifar-10-batches-{flavour}", files)
    same_set(read(folder), small_set)
    same_set(read(tmp_path), small_set)
    assert read(tmp_path).source.name == f"cifar-10-batches-{flavour}"


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_missing_batch(name: str, python_files: Files, write_tar: Callable, tmp_path: Path) -> None:
    files = {key: content for key, content in python_files.items() if key != name}
    with pytest.raises(UserError, match=f"{name} is missing"):
        read(write_tar(tmp_path / "mine.tar.gz", files))


def test_duplicate_batch(python_files: Files, write_tar: Callable, tmp_path: Path) -> None:
    files = {**python_files, "again/data_batch_2": python_files["data_batch_2"]}
    with pytest.raises(UserError, match="there is more than one data_batch_2"):
        read(write_tar(tmp_path / "mine.tar.gz", files))


@pytest.mark.parametrize("label", [10, -1])
def test_label_out_of_range(
    label: int, python_files: Files, make_batch: Callable, write_tar: Callable, tmp_path
) -> None:
    files = {**python_files, "data_batch_4": make_batch(np.zeros((2, 3072), np.uint8), [3, label])}
    with pytest.raises(UserError, match=rf"data_batch_4: label {label} of row 1 is outside 0\.\.9"):
        read(write_tar(tmp_path / "mine.tar.gz", files))


def test_binary_label_out_of_range(binary_files: Files, write_tar: Callable, tmp_path: Path) -> None:
    files = {**binary_files, "test_batch.bin": b"\x0a" + bytes(3072)}
    with pytest.raises(UserError, match=r"test_batch\.bin: label 10 of row 0 is outside"):
        read(write_tar(tmp_path / "mine.tar.gz", files))


def test_binary_row_length(binary_files: Files, write_tar: Callable, tmp_path: Path) -> None:
    files = {**binary_files, "data_batch_1.bin": binary_files["data_batch_1.bin"][:-1]}
    with pytest.raises(UserError, match=r"data_batch_1\.bin has 141357 bytes, expected rows of 3073"):
        read(write_tar(tmp_path / "mine.tar.gz", files))


@pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "cifar-10-binary.tar.gz"])
def test_official_name_with_another_checksum(
    name: str, python_files: Files, write_tar: Callable, tmp_path: Path
) -> None:
    path = write_tar(tmp_path / name, python_files)
    with pytest.raises(UserError, match=r"has a wrong checksum: MD5 [0-9a-f]{32} \(\d+ bytes\), expected c"):
        open_source(path)
    with pytest.raises(UserError, match="wrong checksum"):
        open_source(tmp_path)  # a folder in which the archive lies


# ---- what is no source


def test_missing_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"source .*/nowhere does not exist"):
        open_source(tmp_path / "nowhere")


def test_unknown_folder_and_file(tmp_path: Path, write_tar: Callable) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match=r"holds no set of images; expected cifar-10-python\.tar\.gz"):
        open_source(tmp_path)
    (tmp_path / "text.tar.gz").write_text("hello")
    with pytest.raises(UserError, match=r"text\.tar\.gz is no archive"):
        open_source(tmp_path / "text.tar.gz")
    with pytest.raises(UserError, match="holds none of the known layouts"):
        read(write_tar(tmp_path / "other.tar.gz", {"readme.txt": b"hello"}))


def test_two_layouts(python_files: Files, binary_files: Files, write_tar: Callable, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds cifar-binary, cifar-python"):
        read(write_tar(tmp_path / "both.tar.gz", {**python_files, **binary_files}))


def test_a_broken_link_is_not_left_out(make_png: Callable, write_folder: Callable, tmp_path: Path) -> None:
    write_folder(tmp_path, small_tree(make_png()))
    (tmp_path / "train/cat/2.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(UserError, match=r"train/cat/2\.png cannot be read: No such file"):
        open_source(tmp_path)


def test_the_checksum_of_a_folder_follows_its_images(
    make_png: Callable, write_folder: Callable, tmp_path: Path
) -> None:
    write_folder(tmp_path, small_tree(make_png()))
    first = open_source(tmp_path).checksum
    assert open_source(tmp_path).checksum == first
    (tmp_path / "train/cat/1.png").write_bytes(make_png((9, 9, 9)))
    assert open_source(tmp_path).checksum != first


def test_real_cifar10_is_recognised_by_its_content() -> None:
    source = os.environ.get("FASTCIFAR_SOURCE")
    if not source or not Path(source).exists():
        pytest.skip("FASTCIFAR_SOURCE names no copy of the real CIFAR-10")
    raw = read(Path(source))
    assert (len(raw.train), len(raw.test)) == (50_000, 10_000)
    assert content_digest(raw) == CONTENT_SHA256
