"""Winograd convolutions and their gradients against torch's direct ones in float64, for every shape."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tensors import PRECISIONS, needs_fp16, noise
from torch import Tensor
from torch.nn import functional as F

from fastcifar.nn.arrays import NO_INDICES, as_array
from fastcifar.nn.winograd import convolution
from fastcifar.nn.winograd.convolution import convolve, filter_gradient, input_gradient
from fastcifar.nn.winograd.gemm import FILTER_GRAD_ROWS
from fastcifar.nn.winograd.kernels import GEMMS, kernels
from fastcifar.nn.winograd.matrices import ALPHA, MATRICES, OUTPUT_TILE, POINTS_OF_TILE
from fastcifar.nn.winograd.tile_layout import covered, gemm_tiles, locate_tile, tile_count, tile_grid

GROWTH, RMS_GROWTH = 64, 4
"""Bounds of the largest error and of its root mean square, in units of the type's epsilon times the largest sum of the
absolute values of the products of a result. Typical are 3 and 0.3."""


def check_against_float64(
    number: int, channels: int, outputs: int, height: int, width: int, *, pool: bool = False, fp16: bool = False
) -> None:
    x = noise(number, channels, height, width, seed=0)
    weight = noise(outputs, channels, 3, 3, seed=1) / (9 * channels) ** 0.5
    y, pool_indices = convolve(x, weight, pool=pool, fp16=fp16)
    assert y.dtype == (torch.float16 if fp16 else torch.float32)
    assert y.is_contiguous(memory_format=torch.channels_last)
    gradient = (noise(*y.shape, seed=2) / 16).to(y.dtype)

    exact_x, exact_weight = x.double().requires_grad_(), weight.double().requires_grad_()
    expected = F.conv2d(exact_x, exact_weight, padding=1)
    largest = F.conv2d(x.abs(), weight.abs(), padding=1).max()
    if pool_indices is not None:  # of nearly equal values in a window either may be the maximum
        windows = pooling_windows(expected)
        expected = windows.gather(4, pool_indices.permute(0, 3, 1, 2).long()[..., None]).squeeze(4)
        assert (windows.amax(4) - expected).max() <= 2 * GROWTH * torch.finfo(y.dtype).eps * largest
    assert_close(y, expected, largest)

    to_x, to_weight = torch.autograd.grad(expected, (exact_x, exact_weight), gradient.double())
    options = {"scale": 0.25, "fp16": fp16}
    sides, incoming = (height, width), unpooled(gradient.float(), pool_indices, (height, width))
    largest = F.conv_transpose2d(incoming.abs(), weight.abs(), padding=1).max() / 4
    assert_close(input_gradient(gradient, pool_indices, weight, sides, **options), to_x / 4, largest, y.dtype)
    largest = F.conv2d(x.abs().transpose(0, 1), incoming.abs().transpose(0, 1), padding=1).max() / 4
    assert_close(filter_gradient(x, gradient, pool_indices, **options), to_weight / 4, largest, y.dtype)


def assert_close(found: Tensor, expected: Tensor, largest: Tensor, dtype: torch.dtype | None = None) -> None:
    assert found.shape == expected.shape
    errors = (found.double() - expected.detach()) / (torch.finfo(dtype or found.dtype).eps * largest)
    assert errors.abs().max() < GROWTH
    assert errors.square().mean().sqrt() < RMS_GROWTH


def pooling_windows(values: Tensor) -> Tensor:
    """(n, k, h, w) to (n, k, h // 2, w // 2, 4)."""
    height, width = values.shape[2] // 2, values.shape[3] // 2
    even = values[:, :, : 2 * height, : 2 * width]
    return even.unflatten(3, (width, 2)).unflatten(2, (height, 2)).transpose(3, 4).flatten(4)


def unpooled(gradient: Tensor, pool_indices: Tensor | None, sides: tuple[int, int]) -> Tensor:
    if pool_indices is None:
        return gradient
    values = torch.zeros(*gradient.shape[:2], *sides, requires_grad=True)
    picked = pooling_windows(values).gather(4, pool_indices.permute(0, 3, 1, 2).long()[..., None]).squeeze(4)
    return torch.autograd.grad(picked, values, gradient)[0]


@pytest.mark.parametrize("outputs", list(MATRICES))
def test_matrices_are_a_minimal_filtering(outputs: int) -> None:
    """A^T [(G g) * (B^T d)] is the correlation with three numbers, and smaller tiles use rows of the full tile's G."""
    generator = np.random.default_rng(0)
    d, g = generator.standard_normal(outputs + 2), generator.standard_normal(3)
    input_matrix, output_matrix, filter_matrix = MATRICES[outputs]
    found = output_matrix @ ((filter_matrix @ g) * (input_matrix @ d))
    assert found == pytest.approx(np.correlate(d, g), abs=1e-12)
    assert np.array_equal(filter_matrix, MATRICES[OUTPUT_TILE][2][list(POINTS_OF_TILE[outputs])])


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), edge=st.sampled_from([2, 3]), images=st.integers(1, 4))
def test_tiles_cover_a_feature_map_and_those_of_a_gemm_are_adjacent(
    height: int, width: int, edge: int, images: int
) -> None:
    if edge == 2:
        height, width = 2 * height, 2 * width
    grid = tile_grid(height, width, edge)
    outputs, sizes = np.zeros((height + 4, width + 4), int), {}
    for image in range(images):
        for tile in (locate_tile(number, grid, image, images) for number in range(tile_count(grid))):
            outputs[tile.top : tile.top + tile.rows, tile.left : tile.left + tile.columns] += 1
            sizes[tile.place] = tile.rows, tile.columns
    inside = outputs[:height, :width]
    assert (inside == images).all()
    assert outputs.sum() == images * np.prod(covered(grid))
    assert outputs.sum() == inside.sum() or (edge == 3 and min(height, width) < 7)
    assert sorted(sizes) == list(range(len(sizes)))
    for element in range(GEMMS):
        y, x = divmod(element, ALPHA)
        taking_part = [
            i for i, (rows, columns) in sizes.items() if y in POINTS_OF_TILE[rows] and x in POINTS_OF_TILE[columns]
        ]
        first, count = gemm_tiles(element, grid, images)
        assert sorted(taking_part) == list(range(first, first + count))


@pytest.mark.parametrize("fp16", PRECISIONS)
@settings(max_examples=15, deadline=None)
@given(
    number=st.integers(1, 7),
    channels=st.integers(1, 70),
    outputs=st.integers(1, 70),
    height=st.integers(1, 18),
    width=st.integers(1, 18),
)
@example(number=2, channels=24, outputs=64, height=31, width=31)
@example(number=200, channels=16, outputs=20, height=3, width=4)  # more tiles than a thread takes at a time
@example(number=1, channels=230, outputs=240, height=5, width=5)  # more products than are summed in float16
def test_any_shape(number: int, channels: int, outputs: int, height: int, width: int, fp16: bool) -> None:
    check_against_float64(number, channels, outputs, height, width, fp16=fp16)


@pytest.mark.parametrize("fp16", PRECISIONS)
@settings(max_examples=15, deadline=None)
@given(
    number=st.integers(1, 7),
    channels=st.integers(1, 70),
    slices=st.integers(1, 5),
    height=st.integers(2, 18),
    width=st.integers(2, 18),
)
@example(number=1, channels=24, slices=4, height=45, width=41)
@example(number=200, channels=16, slices=1, height=7, width=4)
@example(number=1, channels=230, slices=15, height=6, width=6)
def test_any_shape_pooled(number: int, channels: int, slices: int, height: int, width: int, fp16: bool) -> None:
    check_against_float64(number, channels, 16 * slices, height, width, pool=True, fp16=fp16)


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("channels", [20, 80, 128])
def test_vectors_of_256_bits(monkeypatch: pytest.MonkeyPatch, pool: bool, channels: int) -> None:
    """Both numbers of rows that a micro-kernel takes, and remainders."""
    monkeypatch.setattr(convolution, "has_avx512", lambda: False)
    check_against_float64(5, channels, 48, 13, 10, pool=pool)


@pytest.mark.parametrize(
    ("fp16", "avx512"), [(False, False), (False, True), pytest.param(True, True, marks=needs_fp16)]
)
@pytest.mark.parametrize("channels", [16, 24, 56, 104])
def test_filter_gradient_stays_in_its_array(fp16: bool, avx512: bool, channels: int) -> None:
    rows, images = -(-channels // FILTER_GRAD_ROWS) * FILTER_GRAD_ROWS, 12
    memory = np.full(GEMMS * rows * 32 + 4096, 7.0, np.float32)
    x, gradient = noise(images, 8, 8, channels, seed=0).contiguous(), noise(images, 8, 8, 32, seed=1).contiguous()
    arrays = as_array(x), as_array(gradient.half() if fp16 else gradient)
    sums = memory[: GEMMS * rows * 32].reshape(1, 1, GEMMS, rows, 32)
    kernels(fp16).filter_gradient(*arrays, NO_INDICES, sums, 8, 8, images, 1, avx512)
    assert (memory[GEMMS * rows * 32 :] == 7).all()


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_outputs_do_not_depend_on_threads_and_gradients_repeat(threads: None) -> None:
    x, weight, gradient = noise(9, 24, 15, 15, seed=0), noise(64, 24, 3, 3, seed=1), noise(9, 64, 7, 7, seed=2)
    outputs = []
    for number in (1, 2, 5):
        torch.set_num_threads(number)
        y, pool_indices = convolve(x, weight, pool=True)
        assert pool_indices is not None
        outputs.append((y, pool_indices, input_gradient(gradient, pool_indices, weight, (15, 15))))
        first, again = (filter_gradient(x, gradient, pool_indices) for _ in range(2))
        assert torch.equal(first, again)
    for found in outputs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found, outputs[0], strict=True))


@pytest.mark.parametrize("fp16", PRECISIONS)
@pytest.mark.parametrize("pool", [False, True])
def test_nan_reaches_the_output_of_its_image_only(pool: bool, fp16: bool) -> None:
    x, weight = noise(2, 16, 8, 8, seed=0), noise(16, 16, 3, 3, seed=1)
    x[1, 3, 4, 4] = float("nan")
    y, _ = convolve(x, weight, pool=pool, fp16=fp16)
    assert y[1].isnan().any()
    assert not y[0].isnan().any()


def test_any_memory_format_of_input_weight_and_gradient() -> None:
    x, weight, gradient = noise(2, 16, 9, 9, seed=0), noise(32, 16, 3, 3, seed=1), noise(2, 32, 9, 9, seed=2)
    plain = [t.contiguous() for t in (x, weight, gradient)]
    assert torch.equal(convolve(plain[0], plain[1])[0], convolve(x, weight)[0])
    assert torch.equal(input_gradient(plain[2], None, plain[1], (9, 9)), input_gradient(gradient, None, weight, (9, 9)))
    assert torch.equal(filter_gradient(plain[0], plain[2], None), filter_gradient(x, gradient, None))
