"""A prepared folder as other layers see it: its manifest, its betons as checked files, its splits as arrays."""

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
    "validated_beton",
    "verify",
    "write_set",
]


def read_split(folder: Path, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Reads a checked split into memory.

    Returns uint8 (n, 32, 32, 3), C-contiguous, 0..255, RGB, and int64 (n,) labels in 0..classes-1, in file order.
    Raises UserError as `checked_beton` does, and if the file is not the beton that its manifest describes.
    """
    manifest = load_manifest(folder)
    info = manifest.splits[split]
    path = folder / info.file
    before = check_size(path, info)
    checked_beton(folder, split)
    images_nhwc, labels = read_beton(path)
    if check_size(path, info) != before or load_manifest(folder) != manifest:
        raise UserError(f"{path} was replaced by another prepare while it was being read; start again")
    _check_labels(path, labels, split, manifest)
    return images_nhwc, labels


def validated_beton(folder: Path, split: Split) -> Path:
    """The path of a split's beton, after checking everything but its pixels, which FFCV does not do.

    A matching SHA-256 only proves that manifest and beton belong together. Numbers that crash FFCV may still have been
    written into both. Raises UserError as `read_split` does.
    """
    path = checked_beton(folder, split)
    _check_labels(path, read_labels(path), split, load_manifest(folder))
    return path


def _check_labels(path: Path, labels: np.ndarray, split: Split, manifest: Manifest) -> None:
    samples, classes = manifest.splits[split].samples, len(manifest.class_names)
    if len(labels) != samples:
        raise UserError(f"{path} holds {len(labels)} samples, its manifest says {samples}; {PREPARE_AGAIN}")
    if labels.max() >= classes:
        raise UserError(f"{path} has label {labels.max()}, its manifest names {classes} classes; {PREPARE_AGAIN}")


def verify(folder: Path) -> Manifest:
    """Checks size, SHA-256 and structure of both betons, even if they were verified before. Raises UserError."""
    manifest = load_manifest(folder)
    for split in SPLITS:
        info = manifest.splits[split]
        check_size(folder / info.file, info)
        check_sha256(folder / info.file, info)
        read_split(folder, split)
    return manifest
