"""The process that runs FFCV's writer. `beton_writer` starts and watches it.

FFCV's writer waits forever when its worker dies or cannot write. This process therefore ends as soon as the worker
fails, and as soon as its parent dies, which closes a pipe.
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

WORKER_DIED = 3  # exit status; the worker has printed the reason to standard error


class _Samples:
    """The data set interface of FFCV's writer: a length, and (image, label) by index."""

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
    """Writes the betons of `job`; JSON: {"lifeline": descriptor, "betons": [[path, descriptor, count], ...]}."""
    import ffcv.writer
    from ffcv.fields import IntField, RGBImageField

    description = json.loads(job)

    class WatchedProcess(multiprocessing.Process):
        """Starts the watching threads after the fork, so that the worker is forked from a single thread."""

        def start(self) -> None:
            super().start()
            threading.Thread(target=_end_with_worker, args=(self,), daemon=True).start()
            threading.Thread(target=_end_with_parent, args=(description["lifeline"],), daemon=True).start()

    ffcv.writer.Process = WatchedProcess
    for path, descriptor, count in description["betons"]:
        fields = {"image": RGBImageField(write_mode="raw"), "label": IntField()}
        # With more than one worker the order of the pages, and so the bytes of the file, differ on every run.
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
    os._exit(0)  # at a normal exit, FFCV's native libraries hang on a machine with one CPU; the files are closed
