"""The way of batches to a GPU: slots against a copy engine that is late, and the GPU's loaders with and without one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastcifar.augment.transform import Transform
from fastcifar.loader import LOADERS, cuda, open_loader
from fastcifar.loader.cuda import CudaResidentLoader, CudaStreamLoader
from fastcifar.loader.pinned_buffers import SLOTS, SlotRing, pinned_slots

CPU = torch.device("cpu")
LOADERS_ON_GPU: dict[str, Any] = {"resident": CudaResidentLoader, "stream": CudaStreamLoader}


class LateEngine:
    """Runs copies in the order they were started, and each only when somebody waits for it or for a later one."""

    def __init__(self) -> None:
        self.queue: list[Callable[[], None]] = []
        self.done = 0

    def run_until(self, count: int) -> None:
        while self.done < count:
            self.queue[self.done]()
            self.done += 1


class LateSlot:
    def __init__(self, engine: LateEngine, batch_size: int) -> None:
        self.engine, self.ticket = engine, 0
        self.images = np.zeros((batch_size, 32, 32, 3), np.uint8)
        self.labels = np.zeros(batch_size, np.int64)

    def wait(self) -> None:
        self.engine.run_until(self.ticket)

    def send(self, images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
        count = len(labels)
        self.images[:count], self.labels[:count] = images, labels
        there = torch.zeros(images.shape, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64)

        def copy() -> None:
            there[0].copy_(torch.from_numpy(self.images[:count]))
            there[1].copy_(torch.from_numpy(self.labels[:count]))

        self.engine.queue.append(copy)
        self.ticket = len(self.engine.queue)
        return there


class HastySlot(LateSlot):
    def wait(self) -> None:
        pass


class OrderedSlot(LateSlot):
    """Whose consumer comes after the copy, as a stream that waits for it does."""

    def send(self, images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
        there = super().send(images, labels)
        self.wait()
        return there


def moved(kind: type[LateSlot], batches: int = 20) -> list[bool]:
    """Which of the batches, all written to one buffer as FFCV's are, reached the other side as they were."""
    engine, buffer = LateEngine(), np.zeros((5, 32, 32, 3), np.uint8)
    ring = SlotRing([kind(engine, 5) for _ in range(SLOTS)])
    found = []
    for number in range(batches):
        buffer[:] = number + 1
        found.append(ring.move(buffer, np.full(5, number)))
        assert engine.done <= max(0, number + 1 - SLOTS)  # nobody waited for more than the slot that is used again
    engine.run_until(batches)
    return [bool((images == i + 1).all() and (labels == i).all()) for i, (images, labels) in enumerate(found)]


def test_no_slot_is_overwritten_before_its_copy_has_run() -> None:
    assert all(moved(LateSlot))


def test_without_waiting_the_late_engine_would_show_it() -> None:
    assert moved(HastySlot).count(True) == SLOTS  # only the last round was left alone


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU's loaders with the CPU in place of the GPU: its transform, and a copy engine that is late."""

    def slots(batch_size: int, device: torch.device) -> SlotRing:
        engine = LateEngine()
        return SlotRing([OrderedSlot(engine, batch_size) for _ in range(SLOTS)])

    def on_cpu(transform: Transform, device: torch.device) -> Callable[..., Tensor]:
        def apply(images: Tensor, rows: Tensor, samples: Tensor, epoch: int, size: int = 32) -> Tensor:
            return transform(images.numpy(), rows.numpy(), samples.numpy(), epoch, size)

        return apply

    monkeypatch.setattr(cuda, "pinned_slots", slots)
    monkeypatch.setattr(cuda, "to_device", lambda array, device: torch.from_numpy(array.copy()))
    monkeypatch.setattr(cuda, "CudaTransform", on_cpu)


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize("kind", LOADERS)
def test_loaders_for_a_gpu_give_the_batches_of_the_others(prepared: Any, same: Any, kind: str) -> None:
    options = {"batch_size": 128, "seed": 7, "shuffle": True, "drop_last": False}
    with LOADERS_ON_GPU[kind](prepared.folder, "train", prepared.transform, device=CPU, **options) as loader:
        same(loader.epoch(3), prepared.epoch(3))
        same(loader.epoch(1, 5), prepared.epoch(1)[5:])
        pairs = list(zip(loader.epoch(0), loader.epoch(1), strict=True))
        same([first for first, _ in pairs], prepared.epoch(0))
        same([second for _, second in pairs], prepared.epoch(1))
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
    options = {"batch_size": 50, "seed": 7, "shuffle": True, "drop_last": False}
    with open_loader(kind, prepared.folder, "train", prepared.transform, device=gpu, **options) as loader:
        for epoch in (0, 1):
            torch.cuda._sleep(10**8)  # the host runs ahead of the GPU
            kept = list(loader.epoch(epoch))
            assert all(images.device.type == labels.device.type == "cuda" for images, labels in kept)
            same([(images.cpu(), labels.cpu()) for images, labels in kept], prepared.epoch(epoch, 50))


@pytest.mark.gpu
def test_pinned_slots_keep_batches_whole_when_the_gpu_is_late(gpu: torch.device) -> None:
    ring, buffer = pinned_slots(500, gpu), np.zeros((500, 32, 32, 3), np.uint8)
    torch.cuda._sleep(10**9)
    found = []
    for number in range(40):
        buffer[:] = number
        found.append(ring.move(buffer, np.full(500, number)))
    assert all(bool((images == i).all() and (labels == i).all()) for i, (images, labels) in enumerate(found))
