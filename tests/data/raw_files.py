"""Writers of small sets in every form that `prepare` reads, and of a beton without FFCV."""

import io
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from fastcifar.data.raw_set import SPLITS, RawSet
from fastcifar.data.sources.detect import open_source

Files = dict[str, bytes]
PAGE = 1 << 23


def read(path: Path, resize: bool = False) -> RawSet:
    return open_source(path).read(resize)


def assert_same_set(found: RawSet, expected: RawSet) -> None:
    assert found.class_names == expected.class_names
    for name in SPLITS:
        np.testing.assert_array_equal(found.split(name).images_nhwc, expected.split(name).images_nhwc)
        np.testing.assert_array_equal(found.split(name).labels, expected.split(name).labels)


def png(colour: tuple[int, ...] = (1, 2, 3), size: tuple[int, int] = (32, 32), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour if mode.startswith("RGB") else colour[0]).save(buffer, "PNG")
    return buffer.getvalue()


def small_tree(image: bytes | None = None, prefix: str = "") -> Files:
    """The same image for both splits of two classes."""
    names = [f"{prefix}{split}/{name}/1.png" for split in SPLITS for name in ("cat", "dog")]
    return dict.fromkeys(names, image or png())


def prefixed(files: Files, prefix: str) -> Files:
    return {f"{prefix}{name}": content for name, content in files.items()}


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_tar(path: Path, files: Mapping[str, bytes], *extra: tarfile.TarInfo) -> Path:
    """A tar of files and further members, compressed as the suffix of `path` says."""
    mode = {".tar": "w", ".xz": "w:xz"}.get(path.suffix, "w:gz")
    fast = {"preset": 0} if mode == "w:xz" else {}
    with tarfile.open(path, mode, **fast) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in extra:
            tar.addfile(info)
    return path


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def python2_batch(rows: np.ndarray, labels: list[int]) -> bytes:
    """A batch as Python 2 pickled it: protocol 2, byte strings, NumPy's `_reconstruct`, `ndarray` and `dtype`."""

    def integer(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87Rq\x04("
    shape = b"K\x01" + b"".join(map(integer, rows.shape)) + (b"\x85" if rows.ndim == 1 else b"\x86")
    dtype = b"cnumpy\ndtype\nq\x05U\x02u1K\x00K\x01\x87Rq\x06"
    dtype += b"(K\x03U\x01|NNN" + integer(-1) + integer(-1) + b"K\x00tb\x89"
    data = array + shape + dtype + b"T" + struct.pack("<i", rows.nbytes) + rows.tobytes() + b"tb"
    items = _text(b"data") + data + _text(b"labels") + b"](" + b"".join(map(integer, labels)) + b"e"
    items += _text(b"batch_label") + _text(b"training batch 1 of 5")
    items += _text(b"filenames") + b"](" + _text(b"leptodactylus_pentadactylus_s_000004.png") + b"e"
    return b"\x80\x02}q\x01(" + items + b"u."


def python2_meta(names: list[bytes]) -> bytes:
    return b"\x80\x02}q\x01(U\x0blabel_names](" + b"".join(map(_text, names)) + b"eU\x07num_visM\x00\x0cu."


def _text(value: bytes) -> bytes:
    return b"U" + bytes([len(value)]) + value


def encode_beton(images: np.ndarray, labels: np.ndarray, page: int = PAGE) -> bytes:
    """The bytes of a beton, written field by field from the diagram in `beton_format`."""
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
