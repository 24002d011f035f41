"""A whole data set as arrays, with its per-channel statistics, its content digest and the hold-out split."""

import hashlib
import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fastcifar.data.cifar10 import CHANNELS, IMAGE_SHAPE
from fastcifar.errors import UserError

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
SourceKind = Literal["cifar-python", "cifar-binary", "image-folder", "synthetic"]
SOURCE_KINDS: tuple[SourceKind, ...] = ("cifar-python", "cifar-binary", "image-folder", "synthetic")
_HELD_OUT = re.compile(r";hold-out:([0-9]{1,15})\Z")
_STATISTICS_CHUNK = 4096  # samples; `bincount` copies them as int64, 30 MB


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceInfo:
    """Where a set came from.

    `name` is a base name, never a path. `checksum` is `md5:...` of an archive, `listing:...` of a folder (a digest of
    its file names, sizes and modification times) and None for the synthetic set, which has a `seed` instead. If the
    test split is N held-out train samples, `checksum` ends with `;hold-out:N`.
    """

    kind: SourceKind
    name: str
    checksum: str | None = None
    seed: int | None = None

    @property
    def held_out(self) -> int:
        """The number of train samples that replace the test split; 0 if the test split is the original one."""
        found = _HELD_OUT.search(self.checksum or "")
        return int(found[1]) if found else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class RawSplit:
    """`images_nhwc`: uint8 (n, 32, 32, 3), 0..255, RGB, C-contiguous. `labels`: int64 (n,), 0..classes-1."""

    images_nhwc: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True, slots=True)
class RawSet:
    """Both splits, the class names in label order, and where they came from; UserError if they are inconsistent."""

    train: RawSplit
    test: RawSplit
    class_names: tuple[str, ...]
    source: SourceInfo
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (self.source.name, *self.class_names):
            if not is_plain_text(name):
                raise UserError(f"the name {name!a:.80} of the source or a class is not printable; rename it")
        for name in SPLITS:
            _check_split(name, self.split(name), len(self.class_names))

    def split(self, name: Split) -> RawSplit:
        """The split called `name`."""
        return self.train if name == "train" else self.test


def is_plain_text(value: object) -> bool:
    """Whether a value is a text without control characters and lone surrogates, which UTF-8 cannot encode."""
    return isinstance(value, str) and not any(unicodedata.category(letter) in ("Cc", "Cs") for letter in value)


def _check_split(name: str, split: RawSplit, classes: int) -> None:
    images, labels = split.images_nhwc, split.labels
    assert images.dtype == np.uint8, images.dtype
    assert labels.dtype == np.int64, labels.dtype
    assert images.shape == (len(labels), *IMAGE_SHAPE), images.shape
    assert images.flags.c_contiguous
    if len(labels) == 0:
        raise UserError(f"the {name} split has no images")
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise UserError(
            f"{name} sample {wrong[0]} has label {labels[wrong[0]]}, outside 0..{classes - 1} ({classes} classes)"
        )


def hold_out(raw: RawSet, count: int) -> RawSet:
    """Replaces the test split by `count` train samples, those with the smallest SHA-256 of image and label.

    The choice does not depend on the order of the samples; both splits keep that order. `count` 0 returns `raw`.
    Raises UserError unless at least one train sample is left.
    """
    if count == 0:
        return raw
    total = len(raw.train)
    if not 0 < count < total:
        raise UserError(
            f"--hold-out is {count}, expected 0 to {total - 1}, because the train split has {total} samples"
        )
    digests = list(_sample_digests(0, raw.train))
    held = np.zeros(total, bool)
    held[sorted(range(total), key=digests.__getitem__)[:count]] = True
    return replace(
        raw,
        train=_subset(raw.train, ~held),
        test=_subset(raw.train, held),
        source=replace(raw.source, checksum=mark_held_out(raw.source.checksum, count)),
    )


def mark_held_out(checksum: str | None, count: int) -> str | None:
    """The `SourceInfo.checksum` of a source after `hold_out`."""
    return f"{checksum or ''};hold-out:{count}" if count else checksum


def _subset(split: RawSplit, which: np.ndarray) -> RawSplit:
    return RawSplit(images_nhwc=split.images_nhwc[which], labels=split.labels[which])


def channel_statistics(images_nhwc: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population standard deviation of each channel, in 0..1.

    Exact: computed from histograms of the 256 values in Python integers and rounded once at the end. UserError for a
    constant channel, whose standard deviation is 0.
    """
    histograms = np.zeros((CHANNELS, 256), np.int64)
    for start in range(0, len(images_nhwc), _STATISTICS_CHUNK):
        chunk = images_nhwc[start : start + _STATISTICS_CHUNK]
        for channel in range(CHANNELS):
            histograms[channel] += np.bincount(chunk[..., channel].ravel(), minlength=256)
    mean_01, std_01 = [], []
    for channel, histogram in zip(("red", "green", "blue"), histograms.tolist(), strict=True):
        count = sum(histogram)
        total = sum(value * times for value, times in enumerate(histogram))
        squares = sum(value * value * times for value, times in enumerate(histogram))
        variance_times_count_squared = count * squares - total * total
        if variance_times_count_squared == 0:
            raise UserError(f"every pixel of the train split has the same {channel} value, {total // count}")
        mean_01.append(total / (count * 255))
        std_01.append(math.sqrt(variance_times_count_squared) / (count * 255))
    return tuple(mean_01), tuple(std_01)


def content_digest(raw: RawSet) -> str:
    """SHA-256 of the sorted digests of all samples, which does not depend on their order.

    A sample's digest is the SHA-256 of one byte for the split (0 train, 1 test), the label as 8 little-endian bytes and
    the 3072 bytes of its image.
    """
    total = hashlib.sha256()
    for digest in sorted(digest for i, name in enumerate(SPLITS) for digest in _sample_digests(i, raw.split(name))):
        total.update(digest)
    return total.hexdigest()


def _sample_digests(index: int, split: RawSplit) -> Iterator[bytes]:
    for image, label in zip(split.images_nhwc, split.labels.tolist(), strict=True):
        yield hashlib.sha256(bytes([index]) + label.to_bytes(8, "little") + image.tobytes()).digest()
