"""Pinned buffers whose copies are late, and the CUDA loaders with and without a GPU."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastcifar.augment.transform_torch import TorchTransform
from fastcifar.loader import LOADERS
from fastcifar.loader.pinned_buffers import RING_SIZE, BufferRing, PinnedBuffer, pinned_ring


class LateBuffer(PinnedBuffer):
    """Host memory whose copy runs only when someone waits for it."""

    def __init__(self, batch_size: int) -> None:
        self.images = np.zeros((batch_size, 32, 32, 3), np.uint8)
        self.labels = np.zeros(batch_size, np.int64)
        self.copy: Callable[[], None] | None = None

    def wait(self) -> None:
        if self.copy is not None:
            self.copy()
            self.copy = None

    def send(self, images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
        self.images[:], self.labels[:] = images, labels
        sent = torch.zeros(images.shape, dtype=torch.uint8), torch.zeros(len(labels), dtype=torch.int64)

        def copy() -> None:
            sent[0].copy_(torch.from_numpy(self.images))
            sent[1].copy_(torch.from_numpy(self.labels))

        self.copy = copy
        return sent


def are_intact(found: list[tuple[Tensor, Tensor]]) -> bool:
    """Whether the images and labels of the i-th batch are all i + 1."""
    return all(bool((images == i + 1).all() and (labels == i + 1).all()) for i, (images, labels) in enumerate(found))


def test_a_buffer_is_filled_again_only_after_its_copy_has_run() -> None:
    buffers, source, found = [LateBuffer(5) for _ in range(RING_SIZE)], np.zeros((5, 32, 32, 3), np.uint8), []
    ring = BufferRing(buffers)
    for number in range(20):
        source[:] = number + 1  # FFCV reuses its memory too
        found.append(ring.to_device(source, np.full(5, number + 1)))
        assert sum(buffer.copy is not None for buffer in buffers) == min(
            number + 1, RING_SIZE
        )  # waits no more than that
    for buffer in buffers:
        buffer.wait()
    assert are_intact(found)


GPU = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.fixture(params=["cpu", GPU])
def device(request: pytest.FixtureRequest) -> torch.device:
    """A device that makes its own batches: the CPU by tensor operations, or a real GPU by the kernel."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here")
    return torch.device(request.param)


def opened(prepared: Any, kind: Any, device: torch.device, **changes: Any) -> Any:
    return prepared.open(
        kind, device=device, transform_kind=TorchTransform if device.type == "cpu" else None, **changes
    )


@pytest.mark.parametrize("kind", LOADERS)
def test_the_device_loaders_give_the_batches_of_the_others(
    kind: Any, prepared: Any, same: Any, device: torch.device
) -> None:
    def on_cpu(batches: Any) -> list[tuple[Tensor, Tensor]]:
        return [(images.cpu(), labels.cpu()) for images, labels in batches]

    with opened(prepared, kind, device) as loader:
        assert type(loader).__name__.startswith("Device")
        if device.type == "cuda":
            torch.cuda._sleep(10**8)  # the host runs ahead of the GPU
        same(on_cpu(loader.epoch(3)), prepared.epoch(3))
        same(on_cpu(loader.epoch(1, 5)), prepared.epoch(1)[5:])
        first, second = zip(*zip(loader.epoch(0), loader.epoch(1), strict=True), strict=True)
        assert all(images.device.type == labels.device.type == device.type for images, labels in first)
        same(on_cpu(first), prepared.epoch(0))
        same(on_cpu(second), prepared.epoch(1))
        with prepared.open(kind) as other:
            expected = other.plain_images(200, prepared.transform)
        assert torch.equal(loader.plain_images(200, prepared.transform).cpu(), expected)


def test_a_resident_loader_fills_the_memory_it_is_given(prepared: Any, same: Any, device: torch.device) -> None:
    samples = len(prepared.raw.train.labels)
    images = torch.zeros((samples, 32, 32, 3), dtype=torch.uint8, device=device)
    labels = torch.zeros(samples, dtype=torch.int64, device=device)
    with opened(prepared, "resident", device, storage=(images, labels)) as loader:
        assert torch.equal(images.cpu(), torch.from_numpy(prepared.raw.train.images_nhwc))
        assert torch.equal(labels.cpu(), torch.from_numpy(prepared.raw.train.labels))
        same([(batch.cpu(), its_labels.cpu()) for batch, its_labels in loader.epoch(0)], prepared.epoch(0))
        order = loader.order(2)
    assert sorted(order) == list(range(samples))
    assert images.any()  # which the loader that was closed leaves to its owner


@pytest.mark.parametrize("device", [GPU], indirect=True)
def test_pinned_buffers_keep_batches_intact_when_the_gpu_is_late(device: torch.device) -> None:
    ring, source, found = pinned_ring(500, device), np.zeros((500, 32, 32, 3), np.uint8), []
    torch.cuda._sleep(10**9)
    for number in range(40):
        source[:] = number + 1
        found.append(ring.to_device(source, np.full(500, number + 1)))
    assert are_intact(found)
