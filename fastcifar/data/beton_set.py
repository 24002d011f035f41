"""Writes train.beton, test.beton and manifest.json as one set: all of them or none, even if the process is killed."""

import os
import shutil
from pathlib import Path

import numpy as np

import fastcifar
from fastcifar.data.beton_format import read_beton
from fastcifar.data.beton_writer import max_beton_bytes, write_betons
from fastcifar.data.checks import mark_verified
from fastcifar.data.cifar10 import CLASS_NAMES, CONTENT_SHA256, OFFICIAL_ARCHIVES
from fastcifar.data.manifest import FORMAT_VERSION, MANIFEST_NAME, DatasetKind, Manifest, SplitInfo, save_manifest
from fastcifar.data.raw_set import SPLITS, RawSet, RawSplit, channel_statistics, content_digest
from fastcifar.errors import RunFailedError
from fastcifar.files import digest, sync

STAGING_PREFIX = ".staging-"  # a set that is being written; worthless once its process is gone
COMMIT_NAME = ".commit"  # a complete set whose files are being moved to their places


def write_set(raw: RawSet, out: Path) -> Manifest:
    """Writes a set into `out` and returns its manifest. The caller holds the folder's lock.

    Existing files stay unchanged until the new ones are synced to disk and have been read back and compared. The new
    folder is then renamed to `.commit`, and its files are moved to their places. If the process dies in between,
    `finish_commit`, which every prepare calls first, completes the move.
    Raises UserError if no statistics can be computed, RunFailedError or OSError if the disk or the writer fails.
    """
    out.mkdir(parents=True, exist_ok=True)
    finish_commit(out)
    _check_free_space(raw, out)
    staging = out / f"{STAGING_PREFIX}{os.getpid()}"
    staging.mkdir()
    try:
        manifest = _stage(raw, staging)
        sync(staging)
        staging.rename(out / COMMIT_NAME)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    finish_commit(out)
    for split in SPLITS:
        mark_verified(out, split, manifest.splits[split])  # the SHA-256 was computed from this very file
    return manifest


def finish_commit(out: Path) -> bool:
    """Moves a complete set out of `.commit` and removes what killed runs left. The caller holds the folder's lock.

    Returns whether there was such a set, which at the start of a prepare means that a crash interrupted its move.
    """
    for pattern in (f"{STAGING_PREFIX}*", ".manifest.json.*.part", ".verified.json.*.part"):
        for leftover in out.glob(pattern):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    commit = out / COMMIT_NAME
    if not commit.is_dir():
        return False
    for name in (*(f"{split}.beton" for split in SPLITS), MANIFEST_NAME):
        if (commit / name).exists():
            os.replace(commit / name, out / name)  # noqa: PTH105  (tests replace this very call)
            sync(out)
    shutil.rmtree(commit)
    return True


def _check_free_space(raw: RawSet, out: Path) -> None:
    needed = sum(max_beton_bytes(len(raw.split(split))) for split in SPLITS)
    free = shutil.disk_usage(out).free
    if free < needed:
        raise RunFailedError(f"{out} has {free / 1e6:.0f} MB free, the betons need up to {needed / 1e6:.0f} MB")


def _stage(raw: RawSet, staging: Path) -> Manifest:
    mean_01, std_01 = channel_statistics(raw.train.images_nhwc)
    content = content_digest(raw)
    write_betons([(staging / f"{split}.beton", raw.split(split)) for split in SPLITS])
    splits = {}
    for split in SPLITS:
        path = staging / f"{split}.beton"
        _compare(path, raw.split(split))
        sync(path)
        size = path.stat().st_size
        splits[split] = SplitInfo(file=path.name, sha256=digest(path), bytes=size, samples=len(raw.split(split)))
    dataset = _dataset_kind(raw, content)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        dataset=dataset,
        # an image tree of the real set may have named its folders differently
        class_names=CLASS_NAMES if dataset == "cifar10" else raw.class_names,
        mean_01=mean_01,
        std_01=std_01,
        splits=splits,
        source=raw.source,
        content_sha256=content,
        fastcifar_version=fastcifar.__version__,
    )
    save_manifest(staging, manifest)
    return manifest


def _compare(path: Path, split: RawSplit) -> None:
    images_nhwc, labels = read_beton(path)
    if not (np.array_equal(images_nhwc, split.images_nhwc) and np.array_equal(labels, split.labels)):
        raise RunFailedError(f"{path.name} does not read back as it was written; is the disk full or failing?")


def _dataset_kind(raw: RawSet, content: str) -> DatasetKind:
    if raw.source.kind == "synthetic":
        return "synthetic"
    official = raw.source.checksum in {f"md5:{archive.md5}" for archive in OFFICIAL_ARCHIVES}
    return "cifar10" if official or content == CONTENT_SHA256 else "custom"
