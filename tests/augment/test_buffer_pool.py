"""Memory of batches: reused when the batch is gone, and never before."""

import threading

import numpy as np
import torch

from fastcifar.augment.buffer_pool import ALIGNMENT, MAX_BUFFERS, BufferPool
from fastcifar.augment.transform import Transform
from fastcifar.config import AugmentConfig

IMAGES = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)


def address(array: np.ndarray) -> int:
    return array.ctypes.data


def test_a_buffer_is_reused_when_nothing_refers_to_it():
    pool = BufferPool()
    buffer = pool.take(1000)
    first = address(buffer)
    tensor = torch.from_numpy(buffer).view(torch.bfloat16)
    del buffer
    view = tensor.view(50, 10)[3:].float  # a method refers to its tensor
    del tensor
    assert address(pool.take(1000)) != first
    del view
    assert first in {address(buffer) for buffer in [pool.take(1000) for _ in range(2)]}


def test_sizes_alignment_and_number_of_buffers():
    pool, sizes = BufferPool(), [0, 1, 64, 3071, *[500] * 20]
    held = [pool.take(size) for size in sizes]
    assert [len(buffer) for buffer in held] == sizes
    assert all(address(buffer) % ALIGNMENT == 0 for buffer in held[1:])  # an empty one has no address of its own
    assert len({address(buffer) for buffer in held[1:]}) == len(held) - 1
    assert len(pool._buffers) == MAX_BUFFERS


def test_batches_in_use_are_never_overwritten():
    transform, indices = Transform(AugmentConfig(), (0.5,) * 3, (0.25,) * 3, dtype=torch.bfloat16), np.arange(64)
    kept = [transform(IMAGES, indices, indices, epoch) for epoch in range(12)]
    kept[5] = kept[5][10:12, 1]  # a view keeps its memory as well
    kept[7] = torch.from_numpy(kept[7].view(torch.int16).numpy())  # and so does an array
    copies = [batch.clone() for batch in kept]
    for epoch in range(12, 40):
        transform(IMAGES, indices, indices, epoch)
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


def test_a_batch_needed_by_a_backward_pass_is_not_overwritten():
    transform, indices = Transform(AugmentConfig(), (0.5,) * 3, (0.25,) * 3), np.arange(8)
    weight = torch.ones(8, 3, 32, 32, requires_grad=True)
    expected = transform(IMAGES, indices, indices, 0).clone()
    loss = (transform(IMAGES, indices, indices, 0) * weight).sum()  # only the graph refers to the batch
    for epoch in range(1, 8):
        transform(IMAGES, indices, indices, epoch)
    loss.backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, expected)


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
