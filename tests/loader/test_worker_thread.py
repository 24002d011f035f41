"""Epochs that are left early or fail: with FFCV alone these hang or leak; here they end, well or with an error."""

import gc
import threading
import time
from pathlib import Path

import pytest

from fastcifar.errors import RunFailedError, UserError
from fastcifar.loader import base as protocol
from fastcifar.loader import worker_thread as hand_over

SOON_S = 1.0
has_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")


def workers() -> list[hand_over.WorkerEpoch]:
    return [thread for thread in threading.enumerate() if isinstance(thread, hand_over.WorkerEpoch)]


def counts() -> tuple[int, ...]:
    """Python threads, threads of the process, open files."""
    in_proc = (sum(1 for _ in Path("/proc/self", kind).iterdir()) for kind in ("task", "fd"))
    return threading.active_count(), *in_proc


def no_more_than(before: tuple[int, ...]) -> bool:
    """Whether no count is above `before`; the system may see a joined thread for a moment longer."""
    end = time.monotonic() + SOON_S
    while any(now > then for now, then in zip(counts(), before, strict=True)):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def break_off(loader, taken):
    for _ in zip(range(taken), loader.epoch(1), strict=False):
        pass


def raise_in_consumer(loader, taken):
    def consume():
        for number, _ in enumerate(loader.epoch(1)):
            if number == taken:
                raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        consume()


def close_generator(loader, taken):
    batches = loader.epoch(1)
    for _ in range(taken):
        next(batches)
    batches.close()


def drop_reference(loader, taken):
    batches = loader.epoch(1)
    for _ in range(taken):
        next(batches)


def leave_in_a_cycle(loader, taken):
    cycle = {"batches": loader.epoch(1)}
    cycle["itself"] = cycle
    for _ in range(taken):
        next(cycle["batches"])
    del cycle
    gc.collect()


WAYS = [break_off, raise_in_consumer, close_generator, drop_reference, leave_in_a_cycle]


@has_proc
@pytest.mark.parametrize("leave", WAYS)
def test_half_read_epochs_leave_nothing_behind(stream, leave):
    leave(stream, 2)
    before = counts()
    for i in range(200 // len(WAYS)):
        leave(stream, (0, 1, 4, 17, 18, 19, 20)[i % 7])
        assert workers() == []
    assert no_more_than(before), (counts(), before)


@has_proc
def test_loaders_leave_nothing_behind(prepared, stream, monkeypatch):
    monkeypatch.setattr(protocol, "TOGETHER", 1)  # each batch is a read of its own
    gc.collect()
    before = counts()
    gc.disable()  # the map must go with close, not with a later collection
    try:
        for _ in range(20):
            with prepared.open("stream", batch_size=50) as loader:
                held = loader.epoch(0)
                next(held)
                assert len(workers()) == 1
            assert workers() == []
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


@pytest.mark.parametrize("error", [OSError("disk on fire"), StopIteration("early"), SystemExit(3), MemoryError("full")])
@pytest.mark.parametrize("batch", [0, 6])
def test_an_error_in_the_worker_reaches_the_consumer(stream, same, prepared, monkeypatch, error, batch):
    fail_at(monkeypatch, batch, error)
    batches, taken = stream.epoch(0), []
    started = time.monotonic()
    with pytest.raises(RunFailedError, match=rf"reading .*train\.beton failed: {type(error).__name__}: ") as raised:
        taken.extend(batches)
    assert time.monotonic() - started < SOON_S
    assert raised.value.__cause__ is error
    assert workers() == []
    with pytest.raises(StopIteration):
        next(batches)
    monkeypatch.undo()
    same(stream.epoch(0), prepared.epoch(0, 50))  # the loader is still good


def test_what_was_read_before_an_error_is_delivered(stream, same, prepared, monkeypatch):
    fail_at(monkeypatch, 6, OSError("disk on fire"))
    batches = stream.epoch(0)
    same([next(batches) for _ in range(6)], prepared.epoch(0, 50)[:6])
    with pytest.raises(RunFailedError, match="disk on fire"):
        next(batches)


@pytest.mark.parametrize("end", ["raises", "dies"])
def test_a_worker_may_end_at_any_batch(stream, same, prepared, monkeypatch, end):
    """All that it had read before is delivered; then an error, whether it said something or not."""
    whole, run = prepared.epoch(0, 50), hand_over.WorkerEpoch.run

    def die_at(batch):
        def until(self):
            self.iter_ixes = iter(list(self.iter_ixes)[:batch])
            run(self)

        monkeypatch.setattr(hand_over.WorkerEpoch, "run", until)

    for batch in range(len(whole)):
        die_at(batch) if end == "dies" else fail_at(monkeypatch, batch, OSError("disk on fire"))
        batches, taken = stream.epoch(0), []
        with pytest.raises(RunFailedError, match="the worker thread has ended early" if end == "dies" else "on fire"):
            taken.extend(batches)
        same(taken, whole[:batch])
        assert workers() == []


def test_closing_from_within_the_worker_does_not_lock_up(stream, monkeypatch):
    # garbage collection runs in whichever thread allocates, so an abandoned epoch may be closed by its own worker
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
    monkeypatch.setattr(MemoryContext, "start_batch", lambda self, number: blocked.wait(20))

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
    assert worker.terminate_event.wait(SOON_S)  # or the worker could still hand over a batch
    blocked.set()
    for thread in (consumer, closer):
        thread.join(SOON_S)
        assert not thread.is_alive()
    assert "closed" in str(errors[0])


def test_a_slow_consumer_gets_the_same_batches(stream, same, prepared):
    taken = []
    for number, batch in enumerate(stream.epoch(0)):
        if number < 3:
            time.sleep(2 * hand_over.LOOK_EVERY_S)  # longer than the worker waits for room
        taken.append(batch)
    same(taken, prepared.epoch(0, 50))
