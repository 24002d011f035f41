"""A prepared set whose test split is a part of another's training split, to choose settings without the test set."""

import shutil
from dataclasses import replace
from pathlib import Path

from fastcifar.data.prepared import RawSet, RawSplit, load_manifest, read_split, write_set
from fastcifar.data.raw_set import SPLITS, hold_out, mark_held_out
from fastcifar.errors import UserError

HELD_OUT = 5000
"""Images of the training set; a fifth of a set with fewer than 25,000."""


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
    # not the last images: a set that was read from folders is sorted by class
    train, test = (read_split(data, split) for split in SPLITS)
    raw = RawSet(
        train=RawSplit(images_nhwc=train[0], labels=train[1]),
        test=RawSplit(images_nhwc=test[0], labels=test[1]),
        class_names=manifest.class_names,
        source=manifest.source,
    )
    write_set(hold_out(raw, count), folder)
    return folder
