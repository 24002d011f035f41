"""A prepared set whose test split is the end of another's training split, to choose settings without the test set."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from fastcifar.data.prepared import RawSet, RawSplit, load_manifest, read_split, write_set
from fastcifar.data.raw_set import mark_held_out
from fastcifar.errors import UserError

HELD_OUT = 5000
"""Images at the end of the training set; a fifth of a set with fewer than 25,000."""


def held_out_set(data: Path, work: Path) -> Path:
    """The folder in `work` with the held-out set of the one in `data`; written if it is not there.

    Raises UserError if `data` is not prepared or is itself a held-out set.
    """
    manifest = load_manifest(data)
    if manifest.source.held_out:
        raise UserError(f"{data} is a held-out set; name the whole one with --data")
    count = min(HELD_OUT, manifest.splits["train"].samples // 5)
    folder = work / f"fastcifar-held-out-{count}-{manifest.content_sha256[:12]}"
    source = replace(manifest.source, checksum=mark_held_out(manifest.source.checksum, count))
    try:
        if load_manifest(folder).source == source:
            return folder
    except UserError:
        shutil.rmtree(folder, ignore_errors=True)
    images, labels = read_split(data, "train")
    train, held_out = (
        RawSplit(images_nhwc=np.ascontiguousarray(images[part]), labels=labels[part])
        for part in (slice(-count), slice(-count, None))
    )
    write_set(RawSet(train=train, test=held_out, class_names=manifest.class_names, source=source), folder)
    return folder
