"""The prepared folder, as the other layers see it: its manifest, its betons as checked files, its splits as arrays."""

from pathlib import Path

import numpy as np

from fastcifar.data.beton_format import read_beton, read_labels
from fastcifar.data.beton_set import finish_commit, write_set
from fastcifar.data.checks import check_sha256, check_size, checked_beton
from fastcifar.data.manifest import PREPARE_AGAIN, Manifest, SplitInfo, load_manifest
from fastcifar.data.raw_set import SPLITS, RawSet, RawSplit, SourceInfo, Split
from fastcifar.errors import UserError

__all__ = [
    "Manifest",
    "RawSet",
    "RawSplit",
    "SourceInfo",
    "Split",
    "SplitInfo",
    "checked_beton",
    "finish_commit",
    "load_manifest",
    "read_split",
    "sound_beton",
    "verify",
    "write_set",
]


def read_split(folder: Path, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Reads a checked split into memory.

    Returns uint8 (n, 32, 32, 3), C-contiguous, 0..255, RGB, and int64 (n,) labels in 0..classes-1, in the order of the
    file. Raises UserError as `checked_beton`, and when the file is not the beton its manifest describes.
    """
    manifest = load_manifest(folder)
    info = manifest.splits[split]
    path = folder / info.file
    before = check_size(path, info)
    checked_beton(folder, split)
    images_nhwc, labels = read_beton(path)
    if check_size(path, info) != before or load_manifest(folder) != manifest:
        raise UserError(f"{path} was replaced while it was being read, by another prepare; start again")
    _check_labels(path, labels, info.samples, len(manifest.class_names))
    return images_nhwc, labels


def sound_beton(folder: Path, split: Split) -> Path:
    """The path of a split's beton after checking all but its pixels, number by number, as FFCV does not.

    The SHA-256 only tells that manifest and beton belong together; whoever made both could still have put numbers in
    that crash FFCV. Raises UserError as `read_split`.
    """
    path = checked_beton(folder, split)
    manifest = load_manifest(folder)
    _check_labels(path, read_labels(path), manifest.splits[split].samples, len(manifest.class_names))
    return path


def _check_labels(path: Path, labels: np.ndarray, samples: int, classes: int) -> None:
    if len(labels) != samples:
        raise UserError(f"{path} holds {len(labels)} samples, its manifest says {samples}; {PREPARE_AGAIN}")
    if labels.max() >= classes:
        raise UserError(f"{path} has label {labels.max()}, its manifest names {classes} classes; {PREPARE_AGAIN}")


def verify(folder: Path) -> Manifest:
    """Checks size, SHA-256 and structure of both betons, whatever is remembered; UserError as `checked_beton`."""
    manifest = load_manifest(folder)
    for split in SPLITS:
        info = manifest.splits[split]
        check_size(folder / info.file, info)
        check_sha256(folder / info.file, info)
        read_split(folder, split)
    return manifest
