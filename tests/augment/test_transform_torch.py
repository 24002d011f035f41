"""`TorchTransform` against the plain reference and the compiled kernel, bit for bit, on every device that is here."""

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from bit_patterns import bits
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from fastcifar.augment import reference
from fastcifar.augment.transform import DTYPE_CODES, Transform
from fastcifar.augment.transform_device import EPOCH, POSITION, SEED
from fastcifar.augment.transform_torch import TorchTransform
from fastcifar.config import AugmentConfig
from fastcifar.errors import UserError

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
IMAGES[1] = 100
DTYPES = list(DTYPE_CODES)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here")
    return torch.device("cuda:0" if request.param == "cuda" else "cpu")


def on(device: torch.device, *arrays: np.ndarray) -> Iterator[torch.Tensor]:
    return (torch.from_numpy(array).to(device) for array in arrays)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("pad_mode", "flip", "small"),
    list(itertools.product(("zero", "reflect"), ("none", "random", "alternating"), ("area", "crop"))),
)
def test_it_equals_the_reference_for_every_option(
    device: torch.device, dtype: torch.dtype, pad_mode: Any, flip: Any, small: Any
) -> None:
    indices, ids = np.array([0, 7, 39, 7]), np.array([0, 49_999, 3, 2**62])
    inputs = list(on(device, IMAGES, indices, ids))
    for pad, cutout, size in ((0, 0, 32), (4, 8, 32), (4, 7, 20), (16, 32, 16), (2, 0, 24), (4, 8, 1), (1, 1, 31)):
        config = AugmentConfig(pad=pad, pad_mode=pad_mode, flip=flip, cutout=cutout, small=small)
        transform = Transform(config, MEAN, STD, seed=2**64 - 5, dtype=dtype)
        batch = bits(TorchTransform(transform, device)(*inputs, 3, size))  # type: ignore[misc]
        for found, index, sample_id in zip(batch, indices, ids.tolist(), strict=True):
            expected = reference.augment_one(IMAGES[index], transform, epoch=3, sample_id=sample_id, size=size)
            assert np.array_equal(found, expected), (config, size)


@pytest.mark.parametrize("small", ["area", "crop"])
@pytest.mark.parametrize("size", range(1, 33))
def test_it_equals_the_compiled_kernel_for_every_size(device: torch.device, size: int, small: Any) -> None:
    host = Transform(AugmentConfig(small=small, flip="random"), MEAN, STD, seed=3, dtype=torch.bfloat16)
    indices = np.arange(len(IMAGES))
    images, rows = on(device, IMAGES, indices)
    found = TorchTransform(host, device)(images, rows, rows, 1, size)
    assert np.array_equal(bits(found), bits(host(IMAGES, indices, indices, 1, size)))


configs = st.builds(
    AugmentConfig,
    pad=st.integers(0, 16),
    pad_mode=st.sampled_from(["zero", "reflect"]),
    flip=st.sampled_from(["none", "random", "alternating"]),
    cutout=st.integers(0, 32),
    small=st.sampled_from(["area", "crop"]),
)


@settings(max_examples=200, deadline=None)
@given(
    config=configs,
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 2**63 - 2),
    ids=st.lists(st.integers(0, 2**62), min_size=1, max_size=4),
    size=st.integers(1, 32),
    dtype=st.sampled_from(DTYPES),
)
def test_it_equals_the_compiled_kernel_anywhere(
    config: AugmentConfig, seed: int, epoch: int, ids: list[int], size: int, dtype: torch.dtype
) -> None:
    host = Transform(config, MEAN, STD, seed=seed, dtype=dtype)
    indices, sample_ids = np.arange(len(ids)) + 37 - len(ids), np.array(ids)
    found = TorchTransform(host, CPU)(*on(CPU, IMAGES, indices, sample_ids), epoch, size)  # type: ignore[misc]
    assert np.array_equal(bits(found), bits(host(IMAGES, indices, sample_ids, epoch, size)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_too_small_for_float16_become_zeros_of_their_sign(device: torch.device, dtype: torch.dtype) -> None:
    host = Transform(AugmentConfig(pad=0, cutout=0), MEAN, STD, dtype=dtype)
    host.bias = np.float32(-100) * host.scale + np.array([3e-5, -1e-6, 2**-14], np.float32)
    images, rows = on(device, IMAGES, np.ones(1, np.int64))
    found = bits(TorchTransform(host, device)(images, rows, rows, 0))
    assert np.array_equal(found[0], reference.augment_one(IMAGES[1], host, epoch=0, sample_id=1))
    if dtype == torch.float16:
        assert {tuple(pixel) for pixel in found.reshape(-1, 3)[:, :2].tolist()} == {(0, 0x8000)}


def changed(state: torch.Tensor, epoch: int, position: int, seed: int) -> None:
    values = np.zeros(3, np.uint64)
    values[[EPOCH, POSITION, SEED]] = epoch, position, seed
    state.copy_(torch.from_numpy(values.view(np.int64)))


STATES = [(0, 0, 3), (0, 4, 3), (5, 36, 3), (5, 36, 2**64 - 1), (2**40, 9, 0)]


@pytest.mark.parametrize("flip", ["random", "alternating"])
def test_into_follows_its_state(device: torch.device, flip: Any) -> None:
    """On a GPU as a CUDA graph."""
    config, order = AugmentConfig(flip=flip), np.random.default_rng(1).permutation(len(IMAGES))
    transform = TorchTransform(Transform(config, MEAN, STD, dtype=torch.bfloat16), device)
    images, indices, ids = on(device, IMAGES, order, order + 10**6)
    out = torch.empty((4, 24, 24, 3), dtype=torch.bfloat16, device=device)
    state = transform.new_state()

    work = partial(transform.into, out, images, indices, ids, state)
    if device.type == "cuda":
        work()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        work = graph.replay
    for epoch, position, seed in STATES:
        changed(state, epoch, position, seed)
        work()
        host, batch = Transform(config, MEAN, STD, seed=seed, dtype=torch.bfloat16), order[position : position + 4]
        expected = host(IMAGES, batch, batch + 10**6, epoch, 24)
        assert np.array_equal(bits(out.permute(0, 3, 1, 2)), bits(expected)), (epoch, position, seed)


class Recorded(TorchDispatchMode):
    """Notes the operations inside it, and the dtypes of their results."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **kwargs or {})
        self.names.add(func.overloadpacket.__name__)
        if isinstance(result, torch.Tensor):
            self.dtypes.add(result.dtype)
        return result


@pytest.mark.parametrize("flip", ["none", "random", "alternating"])
@pytest.mark.parametrize(("size", "small"), [(32, "area"), (20, "area"), (24, "crop")])
def test_all_work_can_be_captured_on_any_device(size: int, small: Any, flip: Any) -> None:
    """On tensors without values: what reads a value, or mixes devices, is an error."""
    host, meta = Transform(AugmentConfig(flip=flip, small=small), MEAN, STD, dtype=torch.float16), torch.device("meta")
    transform, indices = TorchTransform(host, meta), torch.arange(8, device=meta)
    images = torch.empty((40, 32, 32, 3), dtype=torch.uint8, device=meta)
    out, state = torch.empty((8, size, size, 3), dtype=torch.float16, device=meta), transform.new_state()
    with Recorded() as recorded:
        transform.into(out, images, indices, indices, state)
    assert recorded.names
    # a value read, a tensor of Python data, a copied number, a size that depends on values, a product TF32 may round
    forbidden = {"_local_scalar_dense", "lift_fresh", "where", "nonzero", "masked_select", "mm", "bmm"}
    assert not recorded.names & forbidden
    assert torch.float64 not in recorded.dtypes


def test_an_empty_batch(device: torch.device) -> None:
    images, rows = on(device, IMAGES, np.zeros(0, np.int64))
    transform = TorchTransform(Transform(AugmentConfig(), MEAN, STD), device)
    assert transform(images, rows, rows, 0, 24).shape == (0, 3, 24, 24)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"images": torch.zeros(40, 32, 32, 3)}, "images.*float32"),
        ({"images": torch.zeros(40, 32, 32, 4, dtype=torch.uint8)[..., :3]}, "contiguous"),
        ({"images": torch.zeros(40, 32, 32, 3, dtype=torch.uint8, device="meta")}, "meta"),
        ({"sample_ids": torch.arange(2)}, r"sample_ids.*\(2,\)"),
        ({"indices": torch.arange(4).int()}, "indices.*int32"),
        ({"state": torch.zeros(2, dtype=torch.int64)}, r"state.*\(2,\)"),
        ({"state": torch.zeros(3)}, "state.*float32"),
        ({"out": torch.zeros(4, 33, 33, 3)}, "size is 33"),
        ({"out": torch.zeros(4, 0, 0, 3)}, "size is 0"),
        ({"out": torch.zeros(4, 32, 24, 3)}, r"\(4, 32, 24, 3\)"),
        ({"out": torch.zeros(5, 32, 32, 3)}, r"\(5, 32, 32, 3\).*4 indices"),
        ({"out": torch.zeros(4, 32, 32, 3, dtype=torch.float16)}, "float16"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(change: dict[str, Any], text: str) -> None:
    transform = TorchTransform(Transform(AugmentConfig(), MEAN, STD), CPU)
    indices, out = torch.arange(4), torch.zeros(4, 32, 32, 3)
    arguments = {"images": torch.from_numpy(IMAGES), "indices": indices, "sample_ids": indices, "out": out} | change
    with pytest.raises(UserError, match=text):
        transform.into(**({"state": transform.new_state()} | arguments))
