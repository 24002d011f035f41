"""The GPU's kernel: compiled to PTX and run in numba's simulator everywhere, run for real where there is a GPU."""

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

from fastcifar.augment.transform import KINDS, Transform
from fastcifar.augment.transform_cuda import CudaTransform
from fastcifar.config import AugmentConfig
from fastcifar.errors import UserError

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
ROWS, SAMPLES = np.array([0, 7, 39, 7]), np.array([0, 49_999, 3, 2**62])
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


@pytest.mark.parametrize(("capability", "kind"), [((8, 0), 1), ((9, 0), 0), ((9, 0), 1)])
def test_ptx_loads_and_stores_16_bytes_and_spills_nothing(capability: tuple[int, int], kind: int) -> None:
    from fastcifar.augment.kernel_cuda import ptx

    text = ptx(capability, kind)
    assert f".target sm_{capability[0]}{capability[1]}" in text
    assert re.findall(r"st\.global\S*", text) == ["st.global.v2.u64"]  # the only store to memory
    assert len(re.findall(r"ld\.global\.v2\.u64", text)) == 1  # the image's bytes; the others are single numbers
    assert ".local" not in text
    assert "fma.rn.f32" in text


def test_ptx_of_sizes_that_are_no_multiple_of_16_bytes_stores_single_values() -> None:
    from fastcifar.augment.kernel_cuda import BFLOAT16, is_wide, ptx

    assert [is_wide(BFLOAT16, size) for size in (32, 24, 20, 16, 31, 18, 7)] == [True] * 4 + [False] * 3
    assert re.findall(r"st\.global\S*", ptx((9, 0), BFLOAT16, wide=False)) == ["st.global.u16"]


def run_script(name: str, **environment: str) -> str:
    root, script = Path(__file__).parents[2], Path(__file__).parent / name
    done = subprocess.run(
        # the simulator's 64-bit numbers are NumPy's, which warn where the hash wraps around
        [sys.executable, "-W", "ignore:overflow encountered:RuntimeWarning", script],
        env=os.environ | environment | {"PYTHONPATH": str(root)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_kernel_in_the_simulator_equals_reference() -> None:
    assert run_script("cuda_simulated.py", NUMBA_ENABLE_CUDASIM="1") == "12"


def test_kernel_compiled_for_the_cpu_equals_reference_for_every_option() -> None:
    assert run_script("cuda_typed.py") == "576"


def test_importing_it_looks_for_no_gpu() -> None:
    code = """
import sys
import torch
from numba.cuda.cudadrv.driver import Driver
torch.cuda.is_available = torch.cuda.init = Driver.ensure_initialized = lambda *_: sys.exit("probed")
import fastcifar.augment.kernel_cuda, fastcifar.augment.transform_cuda
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_the_kernel_could_not_bear_is_refused() -> None:
    transform = CudaTransform(Transform(AugmentConfig(), MEAN, STD), torch.device("cpu"))  # checks come before the GPU
    images, rows = torch.from_numpy(IMAGES), torch.arange(4)
    cases: list[tuple[Any, str]] = [
        ((images.float(), rows, rows, 0), r"images must be uint8 \(n, 32, 32, 3\), got torch\.float32"),
        ((images, rows, rows[:2], 0), r"samples must be int64 \(4,\), got torch\.int64 \(2,\)"),
        ((images, rows.int(), rows, 0), r"rows must be int64 \(4,\), got torch\.int32"),
        ((images, rows, rows, 0, 33), "the output size is 33, but must be between 1 and 32"),
        ((images, rows, rows, 0, 0), "the output size is 0"),
        ((images, rows, rows, 0), "on the GPU, got one on cpu"),
    ]
    for arguments, text in cases:
        with pytest.raises(UserError, match=text):
            transform(*arguments)


@on_gpu
@pytest.mark.parametrize("dtype", KINDS, ids=map(str, KINDS))
@pytest.mark.parametrize("size", [32, 31, 24, 20, 18, 16, 7, 1])
def test_gpu_equals_the_cpu_for_every_option(gpu: torch.device, dtype: torch.dtype, size: int) -> None:
    """The CPU's kernel is compared with the reference in test_transform.py."""
    images, rows, samples = (torch.from_numpy(array).to(gpu) for array in (IMAGES, ROWS, SAMPLES))
    for config, epoch in itertools.product(CONFIGS, (0, 1, 2**40)):
        host = Transform(config, MEAN, STD, seed=5, dtype=dtype)
        found = CudaTransform(host, gpu)(images, rows, samples, epoch, size)
        assert found.is_contiguous(memory_format=torch.channels_last)
        expected = host(IMAGES, ROWS, SAMPLES, epoch, size)
        assert torch.equal(found.cpu().view(torch.uint8), expected.view(torch.uint8)), (config, epoch)


@on_gpu
def test_a_captured_launch_follows_its_state(gpu: torch.device) -> None:
    config, count = AugmentConfig(flip="random"), 4
    host = Transform(config, MEAN, STD, seed=3, dtype=torch.bfloat16)
    transform = CudaTransform(host, gpu)
    order = np.random.default_rng(1).permutation(len(IMAGES))
    images, rows = torch.from_numpy(IMAGES).to(gpu), torch.from_numpy(order).to(gpu)
    state = torch.zeros(2, dtype=torch.int64, device=gpu)
    out = torch.empty((count, 32, 32, 3), dtype=torch.bfloat16, device=gpu)
    transform.into(out, images, rows, rows, state)  # compiles and loads, which a capture cannot
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        transform.into(out, images, rows, rows, state)
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
    images, rows = torch.from_numpy(IMAGES).to(gpu), torch.arange(40, device=gpu)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10**8)
        images.add_(1)  # late, and only on this stream
        found = CudaTransform(host, gpu)(images, rows, rows, 0)
    stream.synchronize()
    expected = host(IMAGES + np.uint8(1), np.arange(40), np.arange(40), 0)
    assert torch.equal(found.cpu(), expected)
