"""Counts threads, open files and memory over many half-read epochs and loaders: `python tests/faults/leaks.py`.

Arguments: half-read epochs, loaders. Prints JSON: for each kind of loader two series of eleven rows (done, threads,
open files, resident MiB), the first after a tenth of the way. Before each series come more half-read epochs or loaders
that are not counted: memory grows by 0 to 4 MiB, in a few steps, during the first 60 epochs or so, and less during the
first loaders.

A pause as short as the shortest training step follows each epoch. TBB, which wakes numba's threads, keeps 7 kB of every
call until its threads have been idle for a moment (numba/numba#10225), so memory would grow without it.
"""

import gc
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mutations import write_sound_set

from fastcifar.augment.transform import Transform
from fastcifar.config import AugmentConfig
from fastcifar.data.prepared import load_manifest
from fastcifar.loader import LoaderKind, LoaderOptions, open_loader
from fastcifar.loader.base import Loader

PAUSE_S = 0.005
UNCOUNTED_EPOCHS, UNCOUNTED_LOADERS = 100, 20
Row = tuple[int, int, int, float]


def counts(done: int) -> Row:
    """Threads, files and memory of this process after a garbage collection."""
    gc.collect()
    threads, files = (sum(1 for _ in Path("/proc/self", kind).iterdir()) for kind in ("task", "fd"))
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return done, threads, files, round(pages * 4096 / 2**20, 1)


def series(times: int, once: Callable[[int], None]) -> list[Row]:
    """The counts while `once` runs `times` times."""
    rows = []
    wanted = {times * tenth // 100 for tenth in range(10, 101, 9)}
    for done in range(1, times + 1):
        once(done)
        if done in wanted:
            rows.append(counts(done))
    return rows


def watch(kind: LoaderKind, folder: Path, epochs: int, loaders: int) -> dict[str, list[Row]]:
    """Both series of one kind of loader, by name."""
    generator, manifest = random.Random(0), load_manifest(folder)
    transform = Transform(AugmentConfig(), manifest.mean_01, manifest.std_01)

    def opened() -> Loader:
        options = LoaderOptions(batch_size=10, seed=0, shuffle=True, drop_last=False)
        return open_loader(kind, folder, "train", transform, options)

    def half_an_epoch(loader: Loader, number: int) -> None:
        for _ in zip(range(generator.randrange(len(loader) + 1)), loader.epoch(number), strict=False):
            pass
        time.sleep(PAUSE_S)

    def lifetime(number: int) -> None:
        with opened() as loader:
            half_an_epoch(loader, number)

    with opened() as loader:
        for number in range(UNCOUNTED_EPOCHS):
            half_an_epoch(loader, number)
        half_read = series(epochs, lambda number: half_an_epoch(loader, number))
    for number in range(UNCOUNTED_LOADERS):
        lifetime(number)
    return {"half_read_epochs": half_read, "loaders": series(loaders, lifetime)}


def main() -> None:
    """Prints both series of both kinds of loader."""
    epochs, loaders = int(sys.argv[1]), int(sys.argv[2])
    with tempfile.TemporaryDirectory(prefix="fastcifar-leaks-") as name:
        write_sound_set(Path(name))
        kinds: tuple[LoaderKind, ...] = ("resident", "stream")  # resident first, before FFCV is imported
        print(json.dumps({kind: watch(kind, Path(name), epochs, loaders) for kind in kinds}))


if __name__ == "__main__":
    main()
