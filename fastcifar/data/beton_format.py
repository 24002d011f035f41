"""Reads FFCV's beton files of raw 32x32 images without FFCV, and refuses every other file.

FFCV checks two bytes of a file and trusts the rest, so a truncated file leads to a crash or to wrong images.
Here every number is checked before it is used. Layout of a beton (version 2, little-endian, n samples):

    offset 0      header, 24 bytes     u2 version = 2 | u2 fields = 2 | u4 page size | u8 n | u8 table offset
    offset 24     field, 1041 bytes    u1 type = 2 (RGB image) | 16 bytes name "image" | 1024 bytes arguments = 0
    offset 1065   field, 1041 bytes    u1 type = 1 (integer)   | 16 bytes name "label" | 1024 bytes arguments = 0
    offset 2106   metadata, n x 24     u1 mode = 1 (raw) | u2 width | u2 height | u8 data offset | 3 unused | i8 label
    next multiple of the page size     pages of images, 32 x 32 x 3 bytes each; no image crosses the end of a page
    table offset  table, n x 24        u8 sample | u8 data offset | u8 size = 3072
    end of file
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fastcifar.data.cifar10 import IMAGE_BYTES, IMAGE_SHAPE, IMAGE_SIZE
from fastcifar.errors import UserError

HEADER = np.dtype([("version", "<u2"), ("fields", "<u2"), ("page", "<u4"), ("samples", "<u8"), ("table", "<u8")])
FIELD = np.dtype([("type", "u1"), ("name", "S16"), ("arguments", "V1024")])
SAMPLE = np.dtype(
    {
        "names": ["mode", "width", "height", "offset", "label"],
        "formats": ["u1", "<u2", "<u2", "<u8", "<i8"],
        "offsets": [0, 1, 3, 5, 16],
        "itemsize": 24,
    }
)
ALLOCATION = np.dtype([("sample", "<u8"), ("offset", "<u8"), ("size", "<u8")])
METADATA_START = HEADER.itemsize + 2 * FIELD.itemsize
VERSION, RGB_TYPE, INTEGER_TYPE, RAW_MODE = 2, 2, 1, 1
MIN_PAGE, MAX_PAGE = 1 << 21, 1 << 31


def read_beton(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads a whole beton: images uint8 (n, 32, 32, 3), C-contiguous, and labels int64 (n,), in sample order.

    Raises UserError, which names the first thing that is wrong. Images are read instead of mapped: a file that is
    truncated meanwhile then causes an error, where a memory map would kill the process.
    """
    with _opened(path) as file:
        samples = _read_samples(path, file)
        return _read_images(path, file, samples["offset"].astype(np.int64)), samples["label"].astype(np.int64)


def read_labels(path: Path) -> np.ndarray:
    """Checks everything in a beton but its pixels and returns the labels, int64 (n,). UserError as `read_beton`."""
    with _opened(path) as file:
        return _read_samples(path, file)["label"].astype(np.int64)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb", buffering=0) as file:
            yield file  # type: ignore[misc]  # unbuffered, but it reads and seeks like a BinaryIO
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except MemoryError:
        raise UserError(f"{path} does not fit into memory; the stream loader needs little of it") from None


def _invalid(path: Path, what: str, found: object, expected: object) -> UserError:
    return UserError(f"{path} is not a valid beton: {what} is {found}, expected {expected}")


def _read_records(path: Path, file: BinaryIO, dtype: np.dtype, offset: int, count: int) -> np.ndarray:
    records = np.empty(count, dtype)
    _read_into(path, file, offset, records.view(np.uint8))
    return records


def _read_into(path: Path, file: BinaryIO, offset: int, target: np.ndarray) -> None:
    file.seek(offset)
    view, done = target.data, 0
    while done < len(view):
        got = file.readinto(view[done:])  # type: ignore[attr-defined]  # not in BinaryIO
        if not got:
            raise UserError(f"{path} is not a valid beton: it ends at byte {offset + done}, in the middle of its data")
        done += got


def _read_header(path: Path, file: BinaryIO, size: int) -> np.void:
    if size < METADATA_START:
        raise _invalid(path, "the size", f"{size} bytes", f"at least {METADATA_START}")
    header = _read_records(path, file, HEADER, 0, 1)[0]
    page = int(header["page"])
    if header["version"] != VERSION:
        raise _invalid(path, "the format version", header["version"], VERSION)
    if header["fields"] != 2:
        raise _invalid(path, "the number of fields", header["fields"], 2)
    if not MIN_PAGE <= page <= MAX_PAGE or page & (page - 1):
        raise _invalid(path, "the page size", page, f"a power of two in {MIN_PAGE}..{MAX_PAGE}")
    fields = _read_records(path, file, FIELD, HEADER.itemsize, 2)
    found = [(int(field["type"]), bytes(field["name"])) for field in fields]
    expected = [(RGB_TYPE, b"image"), (INTEGER_TYPE, b"label")]
    if found != expected:
        raise _invalid(path, "the list of fields (type, name)", found, expected)
    if any(bytes(field["arguments"]).strip(b"\0") for field in fields):
        raise _invalid(path, "the argument block of a field", "not empty", "zeros")
    return header


def _read_samples(path: Path, file: BinaryIO) -> np.ndarray:
    """Checks header, metadata and allocation table and returns the metadata, SAMPLE (n,)."""
    size = file.seek(0, 2)
    header = _read_header(path, file, size)
    count, page, table_start = int(header["samples"]), int(header["page"]), int(header["table"])
    data_start = -(-(METADATA_START + count * SAMPLE.itemsize) // page) * page
    if count == 0 or table_start < data_start + count * IMAGE_BYTES or (table_start - data_start) % page:
        raise _invalid(path, "the table offset", table_start, f"whole pages after {data_start} for {count} samples")
    if table_start + count * ALLOCATION.itemsize != size:
        raise _invalid(path, "the size", f"{size} bytes", f"{table_start + count * ALLOCATION.itemsize}")
    samples = _read_records(path, file, SAMPLE, METADATA_START, count)
    table = _read_records(path, file, ALLOCATION, table_start, count)
    for name, expected in (("mode", RAW_MODE), ("width", IMAGE_SIZE), ("height", IMAGE_SIZE)):
        _check_all(path, samples[name] == expected, samples[name], f"the {name}", expected)
    _check_all(path, samples["label"] >= 0, samples["label"], "the label", "0 or more")
    offsets = samples["offset"]
    in_file = (offsets >= data_start) & (offsets <= table_start - IMAGE_BYTES)
    _check_all(path, in_file, offsets, "the data offset", f"in {data_start}..{table_start - IMAGE_BYTES}")
    in_page = (offsets - np.uint64(data_start)) % np.uint64(page) <= page - IMAGE_BYTES
    _check_all(path, in_page, offsets, "the data offset", "an image within one page")
    if (np.diff(np.sort(offsets)) < IMAGE_BYTES).any():
        raise _invalid(path, "the data of two samples", "overlapping", "apart")
    table = table[np.argsort(table["sample"], kind="stable")]
    numbers = table["sample"]
    _check_all(path, numbers == np.arange(count), numbers, "the sample number in the table", "each once")
    _check_all(path, table["size"] == IMAGE_BYTES, table["size"], "the size in the table", IMAGE_BYTES)
    _check_all(path, table["offset"] == offsets, table["offset"], "the offset in the table", "that of the metadata")
    return samples


def _check_all(path: Path, holds: np.ndarray, values: np.ndarray, what: str, expected: object) -> None:
    wrong = np.flatnonzero(~holds)
    if len(wrong):
        raise _invalid(path, f"{what} of sample {wrong[0]}", values[wrong[0]], expected)


def _read_images(path: Path, file: BinaryIO, offsets: np.ndarray) -> np.ndarray:
    images = np.empty((len(offsets), *IMAGE_SHAPE), np.uint8)
    # Images that are adjacent in the file are read by one call: normally a page of 2730.
    starts = np.concatenate(([0], np.flatnonzero(np.diff(offsets) != IMAGE_BYTES) + 1)).tolist()
    for start, end in zip(starts, [*starts[1:], len(offsets)], strict=True):
        _read_into(path, file, int(offsets[start]), images[start:end].reshape(-1))
    return images
