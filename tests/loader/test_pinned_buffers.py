"""Pinned buffers whose copies are late, and the CUDA loaders with and without a GPU."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastcifar.augment.transform import Transform
from fastcifar.loader import LOADERS, LoaderOptions, cuda
from fastcifar.loader.pinned_buffers import RING_SIZE, BufferRing, PinnedBuffer, pinned_ring

CUDA_LOADERS = {"resident": cuda.CudaResidentLoader, "stream": cuda.CudaStreamLoader}


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


@pytest.fixture
def simulated_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the GPU of the CUDA loaders by the CPU."""

    def copied(images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(images.copy()), torch.from_numpy(labels.copy())

    def on_cpu(transform: Transform, device: torch.device) -> Callable[..., Tensor]:
        def apply(images: Tensor, rows: Tensor, samples: Tensor, epoch: int, size: int = 32) -> Tensor:
            return transform(images.numpy(), rows.numpy(), samples.numpy(), epoch, size)

        return apply

    monkeypatch.setattr(cuda, "pinned_ring", lambda batch_size, device: SimpleNamespace(to_device=copied))
    monkeypatch.setattr(cuda, "to_device", lambda array, device: torch.from_numpy(array.copy()))
    monkeypatch.setattr(cuda, "CudaTransform", on_cpu)


@pytest.mark.usefixtures("simulated_gpu")
@pytest.mark.parametrize("kind", LOADERS)
def test_cuda_loaders_give_the_batches_of_the_others(prepared: Any, same: Any, kind: str) -> None:
    options = LoaderOptions(batch_size=128, seed=7, shuffle=True, drop_last=False)
    with CUDA_LOADERS[kind](prepared.folder, "train", prepared.transform, options) as loader:
        same(loader.epoch(3), prepared.epoch(3))
        same(loader.epoch(1, 5), prepared.epoch(1)[5:])
        first, second = zip(*zip(loader.epoch(0), loader.epoch(1), strict=True), strict=True)
        same(first, prepared.epoch(0))
        same(second, prepared.epoch(1))
        with prepared.open(kind) as other:
            expected = other.plain_images(200, prepared.transform)
        assert torch.equal(loader.plain_images(200, prepared.transform), expected)


@pytest.fixture
def gpu() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here")
    return torch.device("cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("kind", LOADERS)
def test_batches_on_a_gpu_are_those_of_the_cpu(gpu: torch.device, prepared: Any, same: Any, kind: Any) -> None:
    with prepared.open(kind, batch_size=50, device=gpu) as loader:
        for epoch in (0, 1):
            torch.cuda._sleep(10**8)  # the host runs ahead of the GPU
            kept = list(loader.epoch(epoch))
            assert all(images.device.type == labels.device.type == "cuda" for images, labels in kept)
            same([(images.cpu(), labels.cpu()) for images, labels in kept], prepared.epoch(epoch, 50))


@pytest.mark.gpu
def test_pinned_buffers_keep_batches_intact_when_the_gpu_is_late(gpu: torch.device) -> None:
    ring, source, found = pinned_ring(500, gpu), np.zeros((500, 32, 32, 3), np.uint8), []
    torch.cuda._sleep(10**9)
    for number in range(40):
        source[:] = number + 1
        found.append(ring.to_device(source, np.full(500, number + 1)))
    assert are_intact(found)
