"""How batches come from FFCV's worker thread to the consumer, without a hang and without a thread left over.

FFCV's worker dies on an error and its consumer waits for ever, as it does after the end; an abandoned iterator keeps
its thread and its buffers. Here errors are handed over, the consumer knows how many batches are due and looks whether
the worker is alive while it waits, and `close` ends and joins the worker, at the interpreter's exit as well.
"""

import atexit
import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastcifar.errors import RunFailedError

LOOK_EVERY_S = 0.2
"""How often the two sides of the hand-over look whether the other is still there; not a delay of anything else."""


class WorkerEpoch(threading.Thread):
    """The worker thread of one epoch and the iterator over its batches; mixed in before FFCV's EpochIterator.

    FFCV supplies the ring of buffers and `run_pipeline`, which fills one slot; the hand-over is here.
    """

    loader: Any
    iter_ixes: Iterator[np.ndarray]
    output_queue: queue.Queue
    terminate_event: threading.Event
    run_pipeline: Callable[..., tuple[np.ndarray, np.ndarray]]

    def __init__(self, loader: Any, order: np.ndarray) -> None:
        self._due = -(-len(order) // loader.batch_size)
        self._joined = False
        super().__init__(loader, order)  # type: ignore[call-arg]  # FFCV's; it starts the thread at its end
        atexit.register(self.close)  # a worker that outlives the interpreter's own clean-up could hang it

    def run(self) -> None:
        """The worker: fills the ring until the batches are done, the reader leaves, or something goes wrong."""
        slots = self.loader.batches_ahead + 2
        try:
            for number, indices in enumerate(self.iter_ixes):
                if not self._put(self.run_pipeline(number, indices, number % slots, None)):
                    return
        except BaseException as error:  # noqa: BLE001  (raised again where the batches are read)
            self._put(error)

    def _put(self, item: Any) -> bool:
        while not self.terminate_event.is_set():
            with contextlib.suppress(queue.Full):
                self.output_queue.put(item, timeout=LOOK_EVERY_S)
                return True
        return False

    def __iter__(self) -> "WorkerEpoch":
        return self

    def __next__(self) -> tuple[np.ndarray, np.ndarray]:
        if self._due == 0:
            raise StopIteration
        item = self._take()
        if isinstance(item, BaseException):
            self._due = 0
            name = self.loader.fname
            raise RunFailedError(f"reading {name} failed: {type(item).__name__}: {item}") from item
        self._due -= 1
        return item

    def _take(self) -> Any:
        while True:
            alive = self.is_alive()  # asked first: what a worker put before it ended is then found
            try:
                return self.output_queue.get(timeout=LOOK_EVERY_S) if alive else self.output_queue.get_nowait()
            except queue.Empty:
                if not alive:
                    closed = self.terminate_event.is_set()
                    return RuntimeError("the loader was closed" if closed else "the worker thread has ended early")

    def close(self) -> None:
        """Ends the worker and waits for it; at most one batch is still read. Closing twice is fine."""
        if self._joined:
            return  # at exit the second call may come when this module's names are gone
        atexit.unregister(self.close)
        self.terminate_event.set()
        if threading.current_thread() is self:
            return  # garbage collection may call this from within the worker, which then ends by itself
        with contextlib.suppress(queue.Empty):
            while True:  # makes room, should the worker be waiting for it
                self.output_queue.get_nowait()
        self.join()
        self.storage_state = self.memory_allocations = None  # the map and the ring, should someone keep this object
        self._joined = True

    def __del__(self) -> None:
        """Instead of FFCV's, which closes: a thread is only collected when it has ended."""
