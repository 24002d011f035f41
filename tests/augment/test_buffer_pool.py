"""Memory of batches: used again when the batch is gone, and never before."""

import threading

import numpy as np
import torch

from fastcifar.augment.buffer_pool import ALIGNMENT, KEPT, BufferPool
from fastcifar.augment.transform import Transform
from fastcifar.config import AugmentConfig


def address(array: np.ndarray) -> int:
    return array.ctypes.data


def test_a_buffer_comes_back_when_nothing_holds_it():
    pool = BufferPool()
    buffer = pool.take(1000)
    first = address(buffer)
    tensor = torch.from_numpy(buffer).view(torch.bfloat16)
    del buffer
    view = tensor.view(50, 10)[3:].float  # a method holds its tensor
    del tensor
    assert address(pool.take(1000)) != first
    del view
    assert first in {address(kept) for kept in [pool.take(1000) for _ in range(2)]}


def test_sizes_alignment_and_how_many_are_kept():
    pool = BufferPool()
    held = [pool.take(size) for size in (0, 1, 64, 3071, *[500] * 20)]
    assert [len(buffer) for buffer in held] == [0, 1, 64, 3071, *[500] * 20]
    assert all(address(buffer) % ALIGNMENT == 0 for buffer in held[1:])  # an empty one has no address of its own
    assert len({address(buffer) for buffer in held[1:]}) == len(held) - 1
    assert len(pool._buffers) == KEPT


def test_batches_that_are_kept_are_never_written_to_again():
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    transform = Transform(AugmentConfig(), (0.5,) * 3, (0.25,) * 3, dtype=torch.bfloat16)
    rows = np.arange(64)
    kept = [transform(images, rows, rows, epoch) for epoch in range(12)]
    copies = [batch.clone() for batch in kept]
    kept[5] = kept[5][10:12, 1]  # a view keeps its memory as well
    copies[5] = copies[5][10:12, 1]
    numpy_view = kept[7].view(torch.int16).numpy()
    as_it_was = numpy_view.copy()
    kept[7] = copies[7]
    for epoch in range(12, 40):
        transform(images, rows, rows, epoch)
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))
    assert np.array_equal(numpy_view, as_it_was)


def test_what_a_backward_pass_still_needs_is_kept():
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    transform, rows = Transform(AugmentConfig(), (0.5,) * 3, (0.25,) * 3), np.arange(8)
    weight = torch.ones(8, 3, 32, 32, requires_grad=True)
    wanted = transform(images, rows, rows, 0).clone()
    loss = (transform(images, rows, rows, 0) * weight).sum()  # only the graph holds the batch
    for epoch in range(1, 8):
        transform(images, rows, rows, epoch)
    loss.backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, wanted)


def test_threads_never_get_the_same_buffer():
    pool, clashes = BufferPool(), []

    def work(value: int) -> None:
        for _ in range(2000):
            buffer = pool.take(256)
            buffer[:] = value
            if (buffer != value).any():
                clashes.append(value)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clashes == []
