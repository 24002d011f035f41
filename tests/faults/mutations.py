"""Seeded ways to damage a prepared set, and the valid set that they damage; its small pages make small files."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fastcifar.data.beton_format import ALLOCATION, FIELD, HEADER, METADATA_START, MIN_PAGE, SAMPLE
from fastcifar.data.manifest import FORMAT_VERSION, Manifest, SplitInfo, save_manifest
from fastcifar.data.raw_set import RawSet, channel_statistics
from fastcifar.data.sources.synthetic import synthetic_set
from fastcifar.files import digest

SAMPLES = {"train": 300, "test": 40}
NUMBERS = (0, 1, 2, 3, 31, 33, 255, 2**15, 2**16 - 1, 2**21, 2**31 - 1, 2**32 - 1, 2**48, 2**63 - 1, 2**63, 2**64 - 1)
NONSENSE = (None, True, -1, 0, 1, 301, 2**53, 2**64, 10**400, 0.5, 1e308, "", "\ud800", "..", [], [[]], {}, ["a", "b"])
Generator = np.random.Generator
File = bytearray


def encode(images: np.ndarray, labels: np.ndarray, page: int = MIN_PAGE) -> bytes:
    """The bytes of a beton; the layout is in `beton_format`."""
    count, index, per_page = len(labels), np.arange(len(labels)), page // 3072
    start = -(-(METADATA_START + SAMPLE.itemsize * count) // page) * page
    offsets = start + index // per_page * page + index % per_page * 3072
    table_start = start + -(-count // per_page) * page
    samples, table = np.zeros(count, SAMPLE), np.zeros(count, ALLOCATION)
    samples["mode"], samples["width"], samples["height"] = 1, 32, 32
    samples["offset"], samples["label"] = offsets, labels
    table["sample"], table["offset"], table["size"] = index, offsets, 3072
    whole = np.zeros(table_start, np.uint8)
    fields = np.array([(2, b"image", b""), (1, b"label", b"")], FIELD)
    head = np.array([(2, 2, page, count, table_start)], HEADER).tobytes() + fields.tobytes() + samples.tobytes()
    whole[: len(head)] = np.frombuffer(head, np.uint8)
    for offset, image in zip(offsets, images, strict=True):
        whole[offset : offset + 3072] = image.reshape(-1)
    return whole.tobytes() + table.tobytes()


def write_sound_set(folder: Path) -> RawSet:
    """Writes a valid set of ten classes into `folder` and returns its content."""
    raw = synthetic_set(SAMPLES["train"], SAMPLES["test"], seed=8)
    for split in SAMPLES:
        images, labels = raw.split(split).images_nhwc, raw.split(split).labels  # type: ignore[arg-type]
        (folder / f"{split}.beton").write_bytes(encode(images, labels))
    mean_01, std_01 = channel_statistics(raw.train.images_nhwc)
    splits = {split: described(folder, split, count) for split, count in SAMPLES.items()}
    manifest = Manifest(
        format_version=FORMAT_VERSION, dataset="custom", class_names=raw.class_names, mean_01=mean_01, std_01=std_01,
        splits=splits, source=raw.source, content_sha256="0" * 64, fastcifar_version="0.1.0",
    )  # fmt: skip
    save_manifest(folder, manifest)
    return raw


def described(folder: Path, split: str, samples: int) -> SplitInfo:
    """The manifest's entry for the file as it is."""
    path = folder / f"{split}.beton"
    return SplitInfo(file=path.name, sha256=digest(path), bytes=path.stat().st_size, samples=samples)


# ---- damage to the content of a file, in place


def _position(random: Generator, whole: File) -> int:
    """Half of the time in the header, the metadata or the table, as most of a beton is pixels."""
    table = 300 * ALLOCATION.itemsize
    near = (0, METADATA_START + 300 * SAMPLE.itemsize) if random.random() < 0.5 else (len(whole) - table, len(whole))
    low, high = near if random.random() < 0.5 else (0, len(whole))
    return int(random.integers(max(low, 0), max(high, 1)))


def flip_bits(random: Generator, whole: File) -> None:
    for _ in range(random.integers(1, 9)):
        whole[_position(random, whole)] ^= 1 << int(random.integers(8))


def truncate(random: Generator, whole: File) -> None:
    del whole[_position(random, whole) if random.random() < 0.5 else len(whole) - int(random.integers(1, 100)) :]


def extend(random: Generator, whole: File) -> None:
    """Appends zeros, noise or the file itself."""
    more = int(random.integers(1, 5000))
    whole += (bytes(more), random.bytes(more), bytes(whole))[random.integers(3)]


def zero_range(random: Generator, whole: File) -> None:
    """Like a lost page of a disk."""
    start, size = _position(random, whole), int(random.choice([1, 8, 24, 512, 4096, 1 << 20]))
    end = min(start + size, len(whole))
    whole[start:end] = bytes(end - start)


def copy_range(random: Generator, whole: File) -> None:
    """Copies a range over another one, or inserts it, which moves the rest of the file."""
    start, target, size = (
        _position(random, whole),
        _position(random, whole),
        int(random.choice([1, 24, 512, 3072, 4096])),
    )
    piece = whole[start : start + size]
    whole[target : target + (len(piece) if random.random() < 0.7 else 0)] = piece


def swap_ranges(random: Generator, whole: File) -> None:
    """Swaps two aligned ranges, usually images or records."""
    size = int(random.choice([24, 512, 3072]))
    first, second = sorted(size * (_position(random, whole) // size) for _ in range(2))
    if first + size <= second and second + size <= len(whole):
        a, b = whole[first : first + size], whole[second : second + size]
        whole[first : first + size], whole[second : second + size] = b, a


def _set_number(random: Generator, whole: File, dtype: np.dtype, at: int) -> None:
    names = [name for name in dtype.names or () if dtype[name].kind in "ui"]
    fields: Any = dtype.fields
    field, offset = fields[names[random.integers(len(names))]]
    number = random.choice([*NUMBERS, len(whole), len(whole) - 1, len(whole) - 3072], 1)[0]
    value = int(number) % 2 ** (8 * field.itemsize)
    whole[at + offset : at + offset + field.itemsize] = value.to_bytes(field.itemsize, "little")


def set_in_header(random: Generator, whole: File) -> None:
    """Puts an extreme number into the header or a field's description."""
    at, dtype = (0, HEADER) if random.random() < 0.8 else (24 + 1041 * int(random.integers(2)), FIELD)
    _set_number(random, whole, dtype, at)


def set_in_metadata(random: Generator, whole: File) -> None:
    for _ in range(random.integers(1, 4)):
        _set_number(random, whole, SAMPLE, METADATA_START + 24 * int(random.integers(300)))


def set_in_table(random: Generator, whole: File) -> None:
    for _ in range(random.integers(1, 4)):
        _set_number(random, whole, ALLOCATION, len(whole) - 24 * int(random.integers(1, 301)))


def set_label(random: Generator, whole: File) -> None:
    """Replaces a label by another one or one out of range."""
    at = METADATA_START + 24 * int(random.integers(300)) + 16
    whole[at : at + 8] = int(random.choice([9, 10, 11, 255, 2**31, 2**63 - 1, -1])).to_bytes(8, "little", signed=True)


def shuffle_table(random: Generator, whole: File) -> None:
    """Permutes the records of the table, or duplicates one."""
    table = np.frombuffer(bytes(whole[-24 * 300 :]), ALLOCATION).copy()
    if random.random() < 0.5:
        table = random.permutation(table)
    else:
        table[random.integers(300)] = table[random.integers(300)]
    whole[-24 * 300 :] = table.tobytes()


CONTENT: tuple[Callable[[Generator, File], None], ...] = (
    flip_bits, truncate, extend, zero_range, copy_range, swap_ranges, set_in_header, set_in_metadata, set_in_table,
    set_label, shuffle_table,
)  # fmt: skip


# ---- damage to the folder


def swap_files(random: Generator, folder: Path) -> None:
    """Puts the test split in the place of the train split."""
    shutil.copy(folder / "test.beton", folder / "train.beton")


def no_file(random: Generator, folder: Path) -> None:
    """Replaces the beton by nothing, a folder, a pipe, an endless device, a link to itself or an empty file."""
    path = folder / "train.beton"
    path.unlink()
    things = (lambda: None, path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero"),
              lambda: path.symlink_to(path), path.touch)  # fmt: skip
    things[random.integers(len(things))]()


def other_manifest(random: Generator, folder: Path) -> None:
    """Replaces a value of the manifest by nonsense, or some of its bytes."""
    path = folder / "manifest.json"
    whole = bytearray(path.read_bytes())
    if random.random() < 0.3:
        for _ in range(random.integers(1, 4)):
            whole[random.integers(len(whole))] = random.integers(256)
        path.write_bytes(whole)
        return
    value = json.loads(whole)
    inner = _inner(random, value)
    keys = list(inner) if isinstance(inner, dict) else range(len(inner))
    inner[keys[random.integers(len(keys))]] = NONSENSE[random.integers(len(NONSENSE))]
    path.write_text(json.dumps(value))


def _inner(random: Generator, value: Any) -> Any:
    while True:
        items = value.values() if isinstance(value, dict) else value
        deeper = [item for item in items if item and isinstance(item, dict | list)]
        if not deeper or random.random() < 0.3:
            return value
        value = deeper[random.integers(len(deeper))]


def mutate(seed: int, folder: Path, hostile: bool) -> str:
    """Damages the set in `folder` as `seed` says and returns the name of the damage.

    `hostile` makes the manifest fit the damage, or damages the manifest.
    """
    random = np.random.default_rng(seed)
    choices = [*CONTENT, *CONTENT, swap_files, no_file, *([other_manifest] * 4 if hostile else [])]
    chosen = choices[random.integers(len(choices))]
    if chosen in CONTENT:
        whole = bytearray((folder / "train.beton").read_bytes())
        chosen(random, whole)
        (folder / "train.beton").write_bytes(whole)
    else:
        chosen(random, folder)
    if hostile and (chosen in CONTENT or chosen is swap_files):
        _fit_manifest(random, folder)
    return chosen.__name__


def _fit_manifest(random: Generator, folder: Path) -> None:
    path = folder / "manifest.json"
    value = json.loads(path.read_bytes())
    head = (folder / "train.beton").read_bytes()[:24].ljust(24, b"\0")
    said = int(np.frombuffer(head, HEADER)["samples"][0])
    info = described(folder, "train", said if random.random() < 0.5 else value["splits"]["train"]["samples"])
    value["splits"]["train"] |= {"sha256": info.sha256, "bytes": info.bytes, "samples": info.samples}
    path.write_text(json.dumps(value))
