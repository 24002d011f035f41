"""Passes batches from FFCV's worker thread to the consumer, without hangs and without leaked threads.

In FFCV an error kills the worker and its consumer waits forever, as it does after the last batch. An abandoned
iterator keeps its thread and its buffers. Here the worker forwards its error, and the consumer counts the remaining
batches and checks whether the worker is alive while it waits. `close` ends and joins the worker, also at exit.
"""

import atexit
import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastcifar.errors import RunFailedError

POLL_S = 0.2
"""How often a waiting side checks whether the other one is still there. It delays nothing else."""


class WorkerEpoch(threading.Thread):
    """The worker thread of one epoch and the iterator over its batches. A mixin that goes before FFCV's EpochIterator.

    FFCV supplies the ring of buffers, the queue and `run_pipeline`, which fills one buffer.
    """

    loader: Any
    iter_ixes: Iterator[np.ndarray]
    output_queue: queue.Queue
    terminate_event: threading.Event
    run_pipeline: Callable[..., tuple[np.ndarray, np.ndarray]]

    def __init__(self, loader: Any, order: np.ndarray) -> None:
        self._remaining = -(-len(order) // loader.batch_size)
        self._joined = False
        super().__init__(loader, order)  # type: ignore[call-arg]  # FFCV's, which starts the thread
        atexit.register(self.close)  # a worker that runs during the interpreter's clean-up could hang it

    def run(self) -> None:
        """The worker: fills buffers until there are no more batches, the epoch is closed, or an error occurs."""
        num_buffers = self.loader.batches_ahead + 2
        try:
            for number, indices in enumerate(self.iter_ixes):
                if not self._put(self.run_pipeline(number, indices, number % num_buffers, None)):
                    return
        except BaseException as error:  # noqa: BLE001  (raised in the consumer)
            self._put(error)

    def _put(self, item: Any) -> bool:
        while not self.terminate_event.is_set():
            with contextlib.suppress(queue.Full):
                self.output_queue.put(item, timeout=POLL_S)
                return True
        return False

    def __iter__(self) -> "WorkerEpoch":
        return self

    def __next__(self) -> tuple[np.ndarray, np.ndarray]:
        if self._remaining == 0:
            raise StopIteration
        item = self._take()
        if isinstance(item, BaseException):
            self._remaining = 0
            name = self.loader.fname
            raise RunFailedError(f"reading {name} failed: {type(item).__name__}: {item}") from item
        self._remaining -= 1
        return item

    def _take(self) -> Any:
        while True:
            alive = self.is_alive()  # before looking into the queue, so that a worker's last item is not missed
            try:
                return self.output_queue.get(timeout=POLL_S) if alive else self.output_queue.get_nowait()
            except queue.Empty:
                if not alive:
                    closed = self.terminate_event.is_set()
                    return RuntimeError("the loader was closed" if closed else "the worker thread has ended early")

    def close(self) -> None:
        """Ends the worker and joins it; it reads at most one more batch. May be repeated."""
        if self._joined:
            return  # at exit the second call may come after this module's globals were cleared
        atexit.unregister(self.close)
        self.terminate_event.set()
        if threading.current_thread() is self:
            return  # called by garbage collection in the worker itself, which then ends on its own
        with contextlib.suppress(queue.Empty):
            while True:  # the worker may be waiting for room in the queue
                self.output_queue.get_nowait()
        self.join()
        self.storage_state = self.memory_allocations = None  # frees the ring even if this object is kept
        self._joined = True

    def __del__(self) -> None:
        """Replaces FFCV's, which closes. A thread object is only collected when the thread has ended."""
