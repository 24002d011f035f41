"""Small sets in every form, and a second, plain writer of the beton format that FFCV's output is held against."""

import io
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastcifar.data import beton_set
from fastcifar.data.prepared import RawSet, RawSplit, write_set
from fastcifar.data.sources.synthetic import synthetic_set

Files = dict[str, bytes]
PAGE = 1 << 23


def encode_beton(images: np.ndarray, labels: np.ndarray, page: int = PAGE) -> bytes:
    """The bytes of a beton, written from the drawing in `beton_format`, field by field."""
    count = len(labels)
    fields = struct.pack("<B16s1024x", 2, b"image") + struct.pack("<B16s1024x", 1, b"label")
    data_start = -(-(24 + len(fields) + 24 * count) // page) * page
    per_page = page // 3072
    offsets = [data_start + index // per_page * page + index % per_page * 3072 for index in range(count)]
    table_start = data_start + -(-count // per_page) * page
    metadata = b"".join(
        struct.pack("<BHHQ3xq", 1, 32, 32, offset, label)
        for offset, label in zip(offsets, labels.tolist(), strict=True)
    )
    whole = bytearray(table_start)
    head = struct.pack("<HHIQQ", 2, 2, page, count, table_start) + fields + metadata
    whole[: len(head)] = head
    for offset, image in zip(offsets, images, strict=True):
        whole[offset : offset + 3072] = image.tobytes()
    return bytes(whole) + b"".join(struct.pack("<QQQ", index, offset, 3072) for index, offset in enumerate(offsets))


@pytest.fixture(scope="session")
def small_set() -> RawSet:
    return synthetic_set(train=230, test=50, seed=3)


@pytest.fixture(scope="session")
def written(small_set: RawSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that FFCV has written; read only."""
    folder = tmp_path_factory.mktemp("written")
    write_set(small_set, folder)
    return folder


@pytest.fixture
def quick_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes betons in smaller pages without starting FFCV; `test_ffcv_and_the_drawing_agree` compares the two."""

    def write(targets: list[tuple[Path, RawSplit]]) -> None:
        for path, split in targets:
            path.write_bytes(encode_beton(split.images_nhwc, split.labels, page=1 << 21))

    monkeypatch.setattr(beton_set, "write_betons", write)


@pytest.fixture
def prepared(quick_writer: None, small_set: RawSet, tmp_path: Path) -> Path:
    """A prepared folder that a test may spoil."""
    folder = tmp_path / "prepared"
    write_set(small_set, folder)
    return folder


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    return encode_beton


def png(colour: tuple[int, ...] = (1, 2, 3), size: tuple[int, int] = (32, 32), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour if mode.startswith("RGB") else colour[0]).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def make_png() -> Callable[..., bytes]:
    return png


@pytest.fixture(scope="session")
def tree_files(small_set: RawSet) -> Files:
    """`small_set` as a tree of PNG files, suffixes in both cases, in sorted order of class and name."""
    files = {}
    for name in ("train", "test"):
        split = small_set.split(name)
        for index, (image, label) in enumerate(zip(split.images_nhwc, split.labels, strict=True)):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            suffix = ".PNG" if index % 7 == 0 else ".png"
            files[f"{name}/{small_set.class_names[label]}/{index:04}{suffix}"] = buffer.getvalue()
    return files


@pytest.fixture(scope="session")
def sorted_set(small_set: RawSet) -> RawSet:
    """`small_set` in the order an image folder gives it."""
    splits = {}
    for name in ("train", "test"):
        split = small_set.split(name)
        order = np.argsort(split.labels, kind="stable")
        splits[name] = RawSplit(images_nhwc=split.images_nhwc[order], labels=split.labels[order])
    return RawSet(
        class_names=small_set.class_names, source=small_set.source, train=splits["train"], test=splits["test"]
    )


def python2_batch(rows: np.ndarray, labels: list[int]) -> bytes:
    """A batch as Python 2 pickled it: protocol 2, byte strings, numpy's `_reconstruct`, `ndarray` and `dtype`."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87Rq\x04("
    shape = (
        b"K\x01"
        + b"".join(b"J" + struct.pack("<i", size) for size in rows.shape)
        + b"\x85\x86"[rows.ndim - 1 : rows.ndim]
    )
    dtype = (
        b"cnumpy\ndtype\nq\x05U\x02u1K\x00K\x01\x87Rq\x06(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    )
    content = b"T" + struct.pack("<i", rows.nbytes) + rows.tobytes() + b"tb"
    items = text(b"data") + array + shape + dtype + content
    items += text(b"labels") + b"](" + b"".join(b"J" + struct.pack("<i", label) for label in labels) + b"e"
    items += text(b"batch_label") + text(b"training batch 1 of 5")
    items += text(b"filenames") + b"](" + text(b"leptodactylus_pentadactylus_s_000004.png") + b"e"
    return b"\x80\x02}q\x01(" + items + b"u."


def python2_meta(names: list[bytes]) -> bytes:
    texts = b"".join(b"U" + bytes([len(name)]) + name for name in names)
    return b"\x80\x02}q\x01(U\x0blabel_names](" + texts + b"eU\x07num_visM\x00\x0cu."


@pytest.fixture(scope="session")
def make_batch() -> Callable[[np.ndarray, list[int]], bytes]:
    return python2_batch


def batch_rows(small_set: RawSet) -> dict[str, tuple[np.ndarray, list[int]]]:
    parts = {f"data_batch_{n + 1}": (small_set.train, slice(46 * n, 46 * n + 46)) for n in range(5)}
    rows = {}
    for name, (split, part) in {**parts, "test_batch": (small_set.test, slice(None))}.items():
        images = split.images_nhwc[part].transpose(0, 3, 1, 2)
        rows[name] = (np.ascontiguousarray(images).reshape(-1, 3072), split.labels[part].tolist())
    return rows


@pytest.fixture(scope="session")
def python_files(small_set: RawSet) -> Files:
    """`small_set` as CIFAR-10's pickled batches."""
    files = {name: python2_batch(*rows) for name, rows in batch_rows(small_set).items()}
    names = [name.encode() for name in small_set.class_names]
    return {**files, "batches.meta": python2_meta(names)}


@pytest.fixture(scope="session")
def binary_files(small_set: RawSet) -> Files:
    """`small_set` as CIFAR-10's binary batches."""
    files = {}
    for name, (rows, labels) in batch_rows(small_set).items():
        files[f"{name}.bin"] = np.concatenate([np.array(labels, np.uint8)[:, None], rows], 1).tobytes()
    return {**files, "batches.meta.txt": ("\n".join(small_set.class_names) + "\n\n").encode()}


@pytest.fixture(scope="session")
def write_tar() -> Callable[..., Path]:
    """Writes files (and further raw members) as a tar; `mode` as in `tarfile.open`."""

    def write(
        path: Path, files: Mapping[str, bytes], mode: str = "w:gz", extra: tuple[tarfile.TarInfo, ...] = ()
    ) -> Path:
        with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            for info in extra:
                tar.addfile(info)
        return path

    return write


@pytest.fixture(scope="session")
def write_zip() -> Callable[[Path, Mapping[str, bytes]], Path]:
    def write(path: Path, files: Mapping[str, bytes]) -> Path:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path

    return write


@pytest.fixture(scope="session")
def write_folder() -> Callable[[Path, Mapping[str, bytes]], Path]:
    def write(folder: Path, files: Mapping[str, bytes]) -> Path:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder

    return write


@pytest.fixture(scope="session")
def same_set() -> Callable[[RawSet, RawSet], None]:
    def check(found: RawSet, expected: RawSet) -> None:
        assert found.class_names == expected.class_names
        for name in ("train", "test"):
            np.testing.assert_array_equal(found.split(name).images_nhwc, expected.split(name).images_nhwc)
            np.testing.assert_array_equal(found.split(name).labels, expected.split(name).labels)

    return check
