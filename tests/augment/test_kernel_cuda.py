"""The CUDA kernel: compiled to PTX and run in numba's simulator everywhere, run on a GPU where there is one."""

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numba import types

from fastcifar.augment.pixel import BFLOAT16, FLOAT32
from fastcifar.augment.transform import DTYPE_CODES, Transform
from fastcifar.augment.transform_cuda import CudaTransform
from fastcifar.config import AugmentConfig
from fastcifar.errors import UserError
from fastcifar.runtime.numba_cuda import import_numba_cuda

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
INDICES, SAMPLE_IDS = np.array([0, 7, 39, 7]), np.array([0, 49_999, 3, 2**62])
CONFIGS = [
    AugmentConfig(pad=pad, pad_mode=pad_mode, flip=flip, cutout=cutout, small=small)
    for (pad, cutout), pad_mode, flip, small in itertools.product(
        ((0, 0), (4, 8), (16, 7)), ("zero", "reflect"), ("none", "random", "alternating"), ("area", "crop")
    )
]
on_gpu = pytest.mark.gpu


@pytest.fixture
def gpu() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here")
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture
def no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's module is imported anew, and neither the import nor what follows may look for a GPU."""
    import_numba_cuda()
    from numba.cuda.cudadrv.driver import Driver

    for owner, name in ((torch.cuda, "is_available"), (torch.cuda, "init"), (Driver, "ensure_initialized")):
        monkeypatch.setattr(owner, name, lambda *_: pytest.fail("looked for a GPU"))
    monkeypatch.delitem(sys.modules, "fastcifar.augment.kernel_cuda", raising=False)


@pytest.mark.parametrize(
    ("capability", "dtype", "wide", "store"),
    [((9, 0), BFLOAT16, True, "v2.u64"), ((8, 0), FLOAT32, False, "u32")],
)
def test_ptx_loads_16_bytes_stores_16_bytes_if_wide_and_spills_nothing(
    capability: tuple[int, int], dtype: int, wide: bool, store: str, no_probe: None
) -> None:
    from fastcifar.augment.kernel_cuda import _build, cuda

    words, index, number = types.uint64[::1], types.int64[::1], types.int32
    signature = (
        words, index, index, index, types.uint64, number, types.boolean, number, number,
        number, number, types.float32[::1], words if wide else types.uint32[::1],
    )  # fmt: skip
    text = cuda.compile_ptx(_build(dtype, wide), signature, cc=capability)[0]
    assert f".target sm_{capability[0]}{capability[1]}" in text
    assert re.findall(r"st\.global\.(\S*)", text) == [store]  # the only store to memory
    assert len(re.findall(r"ld\.global\.v2\.u64", text)) == 1  # the image's bytes; the others are single numbers
    assert ".local" not in text
    assert "fma.rn.f32" in text


def test_wide_images_are_multiples_of_16_bytes() -> None:
    from fastcifar.augment.kernel_cuda import is_wide

    assert [size for size in (32, 31, 24, 20, 18, 16, 7) if is_wide(BFLOAT16, size)] == [32, 24, 20, 16]


@pytest.mark.parametrize("mode", ["simulated", "compiled"])
def test_kernel_equals_reference_without_a_gpu(mode: str) -> None:
    root, script = Path(__file__).parents[2], Path(__file__).parent / "cuda_without_gpu.py"
    environment = {"PYTHONPATH": str(root), "NUMBA_ENABLE_CUDASIM": str(int(mode == "simulated"))}
    done = subprocess.run(
        # the simulator's 64-bit numbers are NumPy's, which warn where the hash wraps around
        [sys.executable, "-W", "ignore:overflow encountered:RuntimeWarning", script, mode],
        env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 0  # cases


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"images": torch.zeros(40, 32, 32, 3)}, "images.*float32"),
        ({"sample_ids": torch.arange(2)}, r"sample_ids.*\(2,\)"),
        ({"indices": torch.arange(4).int()}, "indices.*int32"),
        ({"size": 33}, "size is 33"),
        ({"size": 0}, "size is 0"),
        ({}, "cpu"),  # all is well but for the device
    ],
)
def test_inputs_the_kernel_cannot_handle_are_rejected(change: dict[str, Any], text: str) -> None:
    transform = CudaTransform(Transform(AugmentConfig(), MEAN, STD), torch.device("cpu"))  # checks come before the GPU
    indices = torch.arange(4)
    arguments = {"images": torch.from_numpy(IMAGES), "indices": indices, "sample_ids": indices, "epoch": 0} | change
    with pytest.raises(UserError, match=text):
        transform(**arguments)


@on_gpu
@pytest.mark.parametrize("dtype", DTYPE_CODES, ids=str)
@pytest.mark.parametrize("size", [32, 31, 24, 20, 18, 16, 7, 1])
def test_gpu_equals_cpu_for_every_option(gpu: torch.device, dtype: torch.dtype, size: int) -> None:
    """test_transform.py compares the CPU kernel with the reference."""
    images, indices, ids = (torch.from_numpy(array).to(gpu) for array in (IMAGES, INDICES, SAMPLE_IDS))
    for config, epoch in itertools.product(CONFIGS, (0, 1, 2**40)):
        host = Transform(config, MEAN, STD, seed=5, dtype=dtype)
        found = CudaTransform(host, gpu)(images, indices, ids, epoch, size)
        assert found.is_contiguous(memory_format=torch.channels_last)
        expected = host(IMAGES, INDICES, SAMPLE_IDS, epoch, size)
        assert torch.equal(found.cpu().view(torch.uint8), expected.view(torch.uint8)), (config, epoch)


@on_gpu
def test_a_captured_launch_follows_its_state(gpu: torch.device) -> None:
    config, count = AugmentConfig(flip="random"), 4
    host = Transform(config, MEAN, STD, seed=3, dtype=torch.bfloat16)
    transform = CudaTransform(host, gpu)
    order = np.random.default_rng(1).permutation(len(IMAGES))
    images, indices = torch.from_numpy(IMAGES).to(gpu), torch.from_numpy(order).to(gpu)
    state = torch.zeros(2, dtype=torch.int64, device=gpu)
    out = torch.empty((count, 32, 32, 3), dtype=torch.bfloat16, device=gpu)
    transform.into(out, images, indices, indices, state)  # compiles and loads, which is not possible during capture
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        transform.into(out, images, indices, indices, state)
        state[1:].add_(count)
    for epoch in (0, 3):
        state.copy_(torch.tensor([epoch, 0]))
        for first in range(0, len(order), count):
            graph.replay()
            batch = order[first : first + count]
            assert torch.equal(out.cpu().permute(0, 3, 1, 2), host(IMAGES, batch, batch, epoch))


@on_gpu
def test_it_runs_on_the_current_stream(gpu: torch.device) -> None:
    host = Transform(AugmentConfig(), MEAN, STD)
    images, indices = torch.from_numpy(IMAGES).to(gpu), torch.arange(40, device=gpu)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10**8)
        images.add_(1)  # delayed, and only on this stream
        found = CudaTransform(host, gpu)(images, indices, indices, 0)
    stream.synchronize()
    expected = host(IMAGES + np.uint8(1), np.arange(40), np.arange(40), 0)
    assert torch.equal(found.cpu(), expected)
