"""Reads damaged sets in a separate process: `python tests/faults/beton_worker.py FAMILY FIRST COUNT`.

FAMILY is damaged (the manifest is unchanged), hostile (the manifest fits the damage, or is damaged itself), or mixed.

Prints for every seed from FIRST on `try SEED WAY` and, after both loaders, `end SEED OUTCOME OUTCOME` of stream and
resident. An outcome is `refused`, `equal` (batches bit-identical to those of the undamaged set), `other` (hostile only:
both loaders give the same batches, with labels and values in range) or `WRONG:...`.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from mutations import mutate, write_sound_set

from fastcifar.augment.transform import Transform
from fastcifar.config import NO_AUGMENTATION
from fastcifar.data.prepared import load_manifest
from fastcifar.errors import RunFailedError, UserError
from fastcifar.loader import LOADERS, LoaderKind, LoaderOptions, open_loader

Batches = tuple[torch.Tensor, torch.Tensor]


def read(kind: LoaderKind, folder: Path) -> tuple[Batches, int]:
    """An epoch in file order as one batch, and the number of classes."""
    manifest = load_manifest(folder)
    transform = Transform(NO_AUGMENTATION, manifest.mean_01, manifest.std_01)
    options = LoaderOptions(batch_size=64, seed=0, shuffle=False, drop_last=False)
    with open_loader(kind, folder, "train", transform, options) as loader:
        images, labels = zip(*loader.epoch(0), strict=True)
        return (torch.cat(images), torch.cat(labels)), len(manifest.class_names)


def outcomes(folder: Path, sound: Batches, hostile: bool) -> list[str]:
    """The outcome of each loader."""
    found: list[str] = []
    first: Batches | None = None
    for kind in LOADERS:
        try:
            batches, classes = read(kind, folder)
        except (UserError, RunFailedError):
            found.append("refused")
            continue
        except BaseException as error:  # noqa: BLE001  (what the test looks for)
            found.append(f"WRONG:{type(error).__name__}:{str(error).replace(' ', '_')[:100]}")
            continue
        first = first or batches
        if _equal(batches, sound):
            found.append("equal")
        elif hostile and _plausible(batches, classes) and _equal(batches, first):
            found.append("other")
        else:
            found.append("WRONG:batches")
    if "other" in found and found[0] != found[1]:
        found[0] += "/WRONG:only_one_loader"
    return found


def _equal(one: Batches, other: Batches) -> bool:
    return all(torch.equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))


def _plausible(batches: Batches, classes: int) -> bool:
    images, labels = batches
    return bool(torch.isfinite(images).all() and (labels >= 0).all() and (labels < classes).all())


def main() -> None:
    """Damages and reads a fresh copy of the set for every seed."""
    family, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fastcifar-faults-", dir=memory) as name:
        original, folder = Path(name, "sound"), Path(name, "damaged")
        original.mkdir()
        write_sound_set(original)
        sound = read("resident", original)[0]
        for seed in range(first, first + count):
            shutil.copytree(original, folder)
            hostile = family == "hostile" or (family == "mixed" and seed % 2 == 1)
            print("try", seed, mutate(seed, folder, hostile), flush=True)
            print("end", seed, *outcomes(folder, sound, hostile), flush=True)
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
