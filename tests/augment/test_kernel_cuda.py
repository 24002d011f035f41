"""The CUDA kernel: compiled to PTX and run on the CPU in two ways everywhere, run on a GPU where there is one."""

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cuda_on_cpu import CpuGpu, named_ptx

from fastcifar.augment import launch_cuda, reference
from fastcifar.augment.launch_cuda import is_wide
from fastcifar.augment.pixel import BFLOAT16
from fastcifar.augment.transform import DTYPE_CODES, Transform
from fastcifar.augment.transform_cuda import CudaTransform
from fastcifar.augment.transform_device import EPOCH, POSITION
from fastcifar.config import AugmentConfig
from fastcifar.errors import UserError

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
IMAGES[7] = 100
INDICES, SAMPLE_IDS = np.array([0, 7, 39, 7]), np.array([0, 49_999, 3, 2**62])
CONFIGS = [
    AugmentConfig(pad=pad, pad_mode=pad_mode, flip=flip, cutout=cutout, small=small)
    for (pad, cutout), pad_mode, flip, small in itertools.product(
        ((0, 0), (4, 8), (16, 7)), ("zero", "reflect"), ("none", "random", "alternating"), ("area", "crop")
    )
]
ROOT = Path(__file__).parents[2]


def test_wide_images_are_multiples_of_16_bytes() -> None:
    assert [size for size in (32, 31, 24, 20, 18, 16, 7) if is_wide(BFLOAT16, size)] == [32, 24, 20, 16]


def test_kernel_equals_reference_in_the_simulator() -> None:
    script = Path(__file__).parent / "cuda_without_gpu.py"
    done = subprocess.run(
        # the simulator's 64-bit numbers are NumPy's, which warn where the hash wraps around
        [sys.executable, "-W", "ignore:overflow encountered:RuntimeWarning", script],
        env=os.environ | {"PYTHONPATH": str(ROOT), "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 0  # cases


class Place:
    """A GPU, or the CPU in its place: the same tests run on both."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.is_gpu = device, device.type == "cuda"
        self.streams: Any = torch.cuda if self.is_gpu else torch.cpu
        self.gpu = None if self.is_gpu else CpuGpu()

    def transform(self, host: Transform) -> CudaTransform:
        return CudaTransform(host, self.device, self.gpu)

    def tensors(self, *arrays: np.ndarray) -> list[torch.Tensor]:
        return [torch.from_numpy(array.copy()).to(self.device) for array in arrays]

    def captured(self, work: Callable[[], None]) -> Callable[[], None]:
        """`work` as a CUDA graph."""
        if not self.is_gpu:
            return work
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        return graph.replay


@pytest.fixture(params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    if request.param == "cpu":
        monkeypatch.setattr(launch_cuda, "ptx", named_ptx)
        return Place(torch.device("cpu"))
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here")
    return Place(torch.device("cuda", torch.cuda.current_device()))


def bits(images: torch.Tensor) -> torch.Tensor:
    """The bytes of a channels_last tensor, because -0 equals 0."""
    return images.cpu().permute(0, 2, 3, 1).view(torch.uint8)


@pytest.mark.parametrize("dtype", DTYPE_CODES, ids=str)
@pytest.mark.parametrize("size", [32, 31, 24, 20, 18, 16, 7, 1])
def test_equals_the_cpu_kernel_for_every_option(place: Place, dtype: torch.dtype, size: int) -> None:
    """test_transform.py compares the CPU kernel with the reference."""
    images, indices, ids = place.tensors(IMAGES, INDICES, SAMPLE_IDS)
    for config, epoch in itertools.product(CONFIGS, (0, 1, 2**40)):
        host = Transform(config, MEAN, STD, seed=5, dtype=dtype)
        found = place.transform(host)(images, indices, ids, epoch, size)
        assert found.is_contiguous(memory_format=torch.channels_last)
        expected = host(IMAGES, INDICES, SAMPLE_IDS, epoch, size)
        assert torch.equal(bits(found), bits(expected)), (config, epoch)


@pytest.mark.parametrize("dtype", DTYPE_CODES, ids=str)
@pytest.mark.parametrize("size", [32, 18])
def test_equals_the_reference_with_the_epoch_position_and_seed_of_the_state(
    place: Place, dtype: torch.dtype, size: int
) -> None:
    images, indices, ids = place.tensors(IMAGES, INDICES, SAMPLE_IDS)
    for config, epoch, seed in itertools.product(CONFIGS[::5], (0, 1, 2**40), (0, 2**63 + 5, 2**64 - 1)):
        host = Transform(config, MEAN, STD, seed=seed, dtype=dtype)
        if epoch == 1:  # gives the image of the value 100 results that are too small for float16
            host.bias = np.float32(-100) * host.scale + np.array([3e-5, -1e-6, 0], np.float32)
        transform = place.transform(host)
        state = transform.new_state()
        state[EPOCH], state[POSITION] = epoch, 1
        out = torch.full((3, size, size, 3), 77, dtype=dtype, device=place.device)
        transform.into(out, images, indices, ids, state)
        found = out.cpu().view(torch.int32 if dtype == torch.float32 else torch.int16).numpy()
        for i, image in enumerate(found, 1):
            sample_id = int(SAMPLE_IDS[i])
            expected = reference.augment_one(IMAGES[INDICES[i]], host, epoch=epoch, sample_id=sample_id, size=size)
            assert np.array_equal(image, expected.view(image.dtype)), (config, epoch, seed, i)


def test_a_captured_launch_follows_its_state(place: Place) -> None:
    count, seeds = 4, (3, 2**64 - 1)
    hosts = {
        seed: Transform(AugmentConfig(flip="random"), MEAN, STD, seed=seed, dtype=torch.bfloat16) for seed in seeds
    }
    transform = place.transform(hosts[3])
    order = np.random.default_rng(1).permutation(len(IMAGES))
    images, indices = place.tensors(IMAGES, order)
    state = transform.new_state()
    out = torch.empty((count, 32, 32, 3), dtype=torch.bfloat16, device=place.device)

    def step() -> None:
        transform.into(out, images, indices, indices, state)
        state[POSITION : POSITION + 1].add_(count)

    step()  # compiles and loads, which is not possible during capture
    replay = place.captured(step)
    for seed, epoch in itertools.product(seeds, (0, 3)):
        state.copy_(place.transform(hosts[seed]).new_state())
        state[EPOCH].fill_(epoch)
        for first in range(0, len(order), count):
            replay()
            batch = order[first : first + count]
            assert torch.equal(out.cpu().permute(0, 3, 1, 2), hosts[seed](IMAGES, batch, batch, epoch))


def test_it_runs_on_the_current_stream(place: Place) -> None:
    host = Transform(AugmentConfig(), MEAN, STD)
    images, indices = place.tensors(IMAGES, np.arange(40))
    transform = place.transform(host)
    transform(images, indices, indices, 0)
    stream = place.streams.Stream()
    stream.wait_stream(place.streams.current_stream())
    with place.streams.stream(stream):
        if place.is_gpu:
            torch.cuda._sleep(10**8)
        images.add_(1)  # delayed, and only on this stream
        found = transform(images, indices, indices, 0)
    place.streams.synchronize()
    expected = host(IMAGES + np.uint8(1), np.arange(40), np.arange(40), 0)
    assert torch.equal(found.cpu(), expected)
    if place.gpu:
        other, own = place.gpu.driver.streams
        assert (other, own) == (id(place.streams.current_stream()), id(stream))


def test_a_thread_that_has_not_used_cuda_can_launch(place: Place) -> None:
    host = Transform(AugmentConfig(), MEAN, STD)
    images, indices, ids = place.tensors(IMAGES, INDICES, SAMPLE_IDS)
    transform, state = place.transform(host), place.transform(host).new_state()
    out = torch.empty((4, 32, 32, 3), device=place.device)
    thread = threading.Thread(target=partial(transform.into, out, images, indices, ids, state))
    thread.start()
    thread.join()
    place.streams.synchronize()
    assert torch.equal(out.cpu().permute(0, 3, 1, 2), host(IMAGES, INDICES, SAMPLE_IDS, 0))


def test_an_empty_batch_launches_nothing(place: Place) -> None:
    images, none = place.tensors(IMAGES, INDICES[:0])
    assert place.transform(Transform(AugmentConfig(), MEAN, STD))(images, none, none, 0).shape == (0, 3, 32, 32)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"images": torch.zeros(40, 32, 32, 3)}, "images.*float32"),
        ({"sample_ids": torch.arange(2)}, r"sample_ids.*\(2,\)"),
        ({"indices": torch.arange(4).int()}, "indices.*int32"),
        ({"size": 33}, "size is 33"),
        ({"size": 0}, "size is 0"),
        ({"images": torch.zeros(2 * 3072 + 8, dtype=torch.uint8)[8:].view(2, 32, 32, 3)}, "multiple of 16"),
        ({}, "cpu"),  # all is well but for the device
    ],
)
def test_inputs_the_kernel_cannot_handle_are_rejected(change: dict[str, Any], text: str) -> None:
    transform = CudaTransform(Transform(AugmentConfig(), MEAN, STD), torch.device("cpu"))  # checks come before the GPU
    indices = torch.arange(4)
    arguments = {"images": torch.from_numpy(IMAGES), "indices": indices, "sample_ids": indices, "epoch": 0} | change
    with pytest.raises(UserError, match=text):
        transform(**arguments)
