"""The process that runs FFCV's writer; started and watched by `beton_writer`, of no use by itself.

FFCV's writer waits for ever when its worker dies or cannot write, so it gets a process that can be ended as a whole:
here the worker is watched (it dies: this process ends), and so is the parent, through a pipe (it dies: the same).
"""

import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from typing import Any

import numpy as np

from fastcifar.data.cifar10 import IMAGE_BYTES, IMAGE_SHAPE

WORKER_DIED = 3  # exit status: what the worker printed on standard error is the reason


class _Samples:
    """What FFCV's writer asks for: a length, and (image, label) by index."""

    def __init__(self, descriptor: int, count: int) -> None:
        with os.fdopen(descriptor, "rb") as file:
            raw = np.memmap(file, np.uint8, mode="r", shape=(count * (8 + IMAGE_BYTES),))
        self.labels = raw[: 8 * count].view("<i8").tolist()
        self.images = raw[8 * count :].reshape(count, *IMAGE_SHAPE)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return np.asarray(self.images[index]), self.labels[index]


def main(job: str) -> None:
    """Writes the betons `job` lists; JSON: {"lifeline": descriptor, "betons": [[path, descriptor, count], ...]}."""
    description = json.loads(job)
    _write_all(description["betons"], description["lifeline"])


def _write_all(betons: list[tuple[str, int, int]], lifeline: int) -> None:
    import ffcv.writer
    from ffcv.fields import IntField, RGBImageField

    class WatchedProcess(multiprocessing.Process):
        """Starts its watchers after the fork, so that the worker is forked from a process with one thread."""

        def start(self) -> None:
            super().start()
            threading.Thread(target=_end_with_worker, args=(self,), daemon=True).start()
            threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()

    ffcv.writer.Process = WatchedProcess
    for path, descriptor, count in betons:
        fields = {"image": RGBImageField(write_mode="raw"), "label": IntField()}
        # One worker: with more, the pages land in the order they get done and no two files are the same.
        ffcv.writer.DatasetWriter(path, fields, num_workers=1).from_indexed_dataset(_Samples(descriptor, count))


def _end_with_worker(worker: Any) -> None:
    multiprocessing.connection.wait([worker.sentinel])
    worker.join()
    if worker.exitcode:
        if worker.exitcode < 0:
            print(f"its worker was ended by {signal.Signals(-worker.exitcode).name}", file=sys.stderr, flush=True)
        os._exit(WORKER_DIED)


def _end_with_parent(lifeline: int) -> None:
    if not os.read(lifeline, 1):
        os.killpg(0, signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1])
