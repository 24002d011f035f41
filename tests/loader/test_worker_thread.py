"""Epochs that are abandoned or fail. With FFCV alone these hang or leak a thread."""

import contextlib
import gc
import threading
import time
from pathlib import Path

import pytest

from fastcifar.errors import RunFailedError, UserError
from fastcifar.loader.worker_thread import POLL_S, WorkerEpoch

JOIN_S = 60.0  # only a hang lasts as long
has_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")


def workers() -> list[WorkerEpoch]:
    return [thread for thread in threading.enumerate() if isinstance(thread, WorkerEpoch)]


def counts() -> tuple[int, ...]:
    """Python threads, threads of the process, open files."""
    in_proc = (sum(1 for _ in Path("/proc/self", kind).iterdir()) for kind in ("task", "fd"))
    return threading.active_count(), *in_proc


def no_more_than(before: tuple[int, ...]) -> bool:
    """Whether no count is above `before`. The system may list a joined thread for a moment longer."""
    end = time.monotonic() + JOIN_S
    while any(now > then for now, then in zip(counts(), before, strict=True)):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def started(loader, taken):
    batches = loader.epoch(1)
    for _ in range(taken):
        next(batches)
    return batches


def drop(loader, taken):
    started(loader, taken)


def close(loader, taken):
    started(loader, taken).close()


def raise_in_consumer(loader, taken):
    with contextlib.suppress(KeyError):
        for number, _ in enumerate(loader.epoch(1)):
            if number == taken:
                raise KeyError


def leave_in_a_cycle(loader, taken):
    cycle = [started(loader, taken)]
    cycle.append(cycle)
    del cycle
    gc.collect()


@has_proc
@pytest.mark.parametrize("abandon", [drop, close, raise_in_consumer, leave_in_a_cycle])
def test_abandoned_epochs_leak_nothing(stream, abandon):
    abandon(stream, 2)
    before = counts()
    for i in range(28):
        abandon(stream, (0, 1, 4, 17, 18, 19, 20)[i % 7])
        assert workers() == []
    assert no_more_than(before), (counts(), before)


@has_proc
def test_close_releases_threads_and_files(prepared, stream):
    gc.collect()
    before = counts()
    gc.disable()  # close must release them, not a later collection
    try:
        for _ in range(20):
            with prepared.open("stream", batch_size=50) as loader:
                held = loader.epoch(0)
                next(held)
        assert no_more_than(before), (counts(), before)
    finally:
        gc.enable()


def fail_at(monkeypatch, batch, error):
    """Makes FFCV raise in its worker thread."""
    from ffcv.memory_managers.base import MemoryContext

    def start_batch(self, number):
        if number == batch:
            raise error

    monkeypatch.setattr(MemoryContext, "start_batch", start_batch)


@pytest.mark.parametrize("batch", [0, 6])
@pytest.mark.parametrize("error", [OSError("disk on fire"), StopIteration("early"), SystemExit(3), MemoryError("full")])
def test_an_error_in_the_worker_reaches_the_consumer(stream, same, prepared, monkeypatch, error, batch):
    fail_at(monkeypatch, batch, error)
    batches, taken = stream.epoch(0), []
    with pytest.raises(RunFailedError, match=rf"train\.beton.*{type(error).__name__}") as raised:
        taken.extend(batches)
    assert raised.value.__cause__ is error
    same(taken, prepared.epoch(0, 50)[:batch])
    assert workers() == []
    with pytest.raises(StopIteration):
        next(batches)
    monkeypatch.undo()
    same(stream.epoch(0), prepared.epoch(0, 50))  # the loader still works


def test_a_worker_that_ends_early_is_noticed_at_every_batch(stream, same, prepared, monkeypatch):
    whole, run = prepared.epoch(0, 50), WorkerEpoch.run
    for batch in range(len(whole)):

        def end_at_batch(self, batch=batch):
            self.iter_ixes = iter(list(self.iter_ixes)[:batch])
            run(self)

        monkeypatch.setattr(WorkerEpoch, "run", end_at_batch)
        batches, taken = stream.epoch(0), []
        with pytest.raises(RunFailedError, match="ended early"):
            taken.extend(batches)
        same(taken, whole[:batch])
        assert workers() == []


def test_closing_in_the_worker_itself_does_not_deadlock(stream, monkeypatch):
    # garbage collection runs in any thread that allocates, so an abandoned epoch may be closed by its own worker
    from ffcv.memory_managers.base import MemoryContext

    closed = []

    def start_batch(self, number):
        if number == 2:
            workers()[0].close()
            closed.append(number)

    monkeypatch.setattr(MemoryContext, "start_batch", start_batch)
    with pytest.raises(RunFailedError, match="closed"):
        list(stream.epoch(0))
    assert closed == [2]
    assert workers() == []


def test_closing_wakes_a_consumer_in_another_thread(stream, monkeypatch):
    from ffcv.memory_managers.base import MemoryContext

    blocked, errors = threading.Event(), []
    monkeypatch.setattr(MemoryContext, "start_batch", lambda self, number: blocked.wait(JOIN_S))

    def consume():
        try:
            next(stream.epoch(0))
        except (RunFailedError, UserError) as error:
            errors.append(error)

    consumer = threading.Thread(target=consume)
    consumer.start()
    while not workers():
        time.sleep(0.01)
    (worker,) = workers()
    closer = threading.Thread(target=stream.close)
    closer.start()
    assert worker.terminate_event.wait(JOIN_S)  # from now on the worker delivers nothing
    blocked.set()
    for thread in (consumer, closer):
        thread.join(JOIN_S)
        assert not thread.is_alive()
    assert "closed" in str(errors[0])


def test_a_slow_consumer_gets_the_same_batches(stream, same, prepared):
    taken = []
    for number, batch in enumerate(stream.epoch(0)):
        if number < 2:
            time.sleep(2 * POLL_S)  # longer than the worker waits for room
        taken.append(batch)
    same(taken, prepared.epoch(0, 50))
