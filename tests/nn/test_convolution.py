"""Convolutions by Winograd's filtering against torch's direct ones in float64, for every shape of map and channel."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from fastcifar.nn.winograd import convolution
from fastcifar.nn.winograd.convolution import as_array, convolve, filter_gradient, input_gradient
from fastcifar.nn.winograd.gemm import ROWS_OF_SUMS
from fastcifar.nn.winograd.kernels import kernels
from fastcifar.nn.winograd.tile_layout import extent, first_of, place_of, span_of, tiling
from fastcifar.nn.winograd.transforms import FILTER, FILTERINGS, POINTS, POINTS_OF, PRODUCTS

TOLERANCE = 1e-4  # of results of the size of 1, in float32; the direct sum's is 1e-6


def noise(*shape: int, seed: int) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else x


def in_float64(x: Tensor, weight: Tensor, gradient: Tensor | None, *, pool: bool) -> tuple[Tensor, ...]:
    """Results, and with a gradient of them those of input and weight."""
    x, weight = x.double().requires_grad_(), weight.double().requires_grad_()
    y = F.conv2d(x, weight, padding=1)
    if pool:
        y = F.max_pool2d(y, 2)
    if gradient is None:
        return (y.detach(),)
    return (y.detach(), *torch.autograd.grad(y, (x, weight), gradient.double()))


def check(number: int, channels: int, outputs: int, height: int, width: int, seed: int, *, pool: bool) -> None:
    x = noise(number, channels, height, width, seed=seed)
    weight = noise(outputs, channels, 3, 3, seed=seed + 1) / (9 * channels) ** 0.5
    sides = (height // 2, width // 2) if pool else (height, width)
    gradient = noise(number, outputs, *sides, seed=seed + 2)
    expected, to_x, to_weight = in_float64(x, weight, gradient, pool=pool)
    found, chosen = convolve(x, weight, pool=pool)
    assert found.shape == expected.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert (found - expected).abs().max() < TOLERANCE
    if pool:  # where two values are as good as equal, either may be the larger one
        values = F.conv2d(x, weight, padding=1)
        assert chosen is not None
        sure = F.max_pool2d(values, 2) - second_largest(values) > 1e-3
        gradient = torch.where(sure, gradient, 0.0).contiguous(memory_format=torch.channels_last)
        _, to_x, to_weight = in_float64(x, weight, gradient, pool=True)
    assert (input_gradient(gradient, chosen, weight, height, width) - to_x).abs().max() < TOLERANCE * outputs**0.5
    error = (filter_gradient(x, gradient, chosen) - to_weight).abs().max()
    assert error < TOLERANCE * to_weight.abs().max().clamp(min=1)


def off_by(found: Tensor, expected: Tensor) -> float:
    """Root mean square of the error, as a fraction of that of what is expected."""
    return ((found.float() - expected).norm() / expected.norm().clamp(min=1e-9)).item()


def second_largest(values: Tensor) -> Tensor:
    """Of each 2x2, (n, k, h // 2, w // 2)."""
    number, outputs, height, width = values.shape
    whole = values[:, :, : height // 2 * 2, : width // 2 * 2]
    return (
        whole.unfold(2, 2, 2).unfold(3, 2, 2).reshape(number, outputs, height // 2, width // 2, 4).sort().values[..., 2]
    )


@pytest.mark.parametrize("results", list(FILTERINGS))
def test_the_matrices_are_a_minimal_filtering(results: int) -> None:
    """A^T [(G g) * (B^T d)] is the correlation with three numbers, exactly; all use the same values of filters."""
    generator = torch.Generator().manual_seed(0)
    d, g = (torch.randn(n, generator=generator, dtype=torch.float64).numpy() for n in (results + 2, 3))
    to_values, to_results, filters = FILTERINGS[results]
    found = to_results @ ((filters @ g) * (to_values @ d))
    assert found == pytest.approx([sum(d[i + j] * g[j] for j in range(3)) for i in range(results)], abs=1e-12)
    assert np.array_equal(filters, FILTER[list(POINTS_OF[results])])


@settings(deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), edge=st.sampled_from([2, 3]), images=st.integers(1, 4))
def test_tiles_cover_a_map_and_lie_with_those_of_their_products(
    height: int, width: int, edge: int, images: int
) -> None:
    if edge == 2:
        height, width = 2 * height, 2 * width
    tiles = tiling(height, width, edge)
    covered, places = np.zeros((height + 4, width + 4), int), {}
    for row in range(tiles[0] + tiles[1]):
        (top, tall) = first_of(row, tiles[0], edge)
        for column in range(tiles[2] + tiles[3]):
            (left, broad) = first_of(column, tiles[2], edge)
            covered[top : top + tall, left : left + broad] += 1
            for image in range(images):
                places[place_of(row, column, tiles, image, images)] = tall, broad
    inside = covered[:height, :width]
    assert (inside == 1).all()
    assert covered.sum() == extent(tiles[0], tiles[1], edge) * extent(tiles[2], tiles[3], edge)
    assert covered.sum() == inside.sum() or (edge == 3 and min(height, width) < 7)
    assert sorted(places) == list(range(len(places)))
    for product in range(PRODUCTS):
        down, across = product // POINTS, product % POINTS
        has = [place for place, (t, b) in places.items() if down in POINTS_OF[t] and across in POINTS_OF[b]]
        first, count = span_of(product, tiles, edge, images)
        assert sorted(has) == list(range(first, first + count))


@settings(max_examples=40, deadline=None)
@given(
    number=st.integers(1, 7),
    channels=st.integers(1, 40),
    outputs=st.integers(1, 70),
    height=st.integers(1, 18),
    width=st.integers(1, 18),
    seed=st.integers(0, 100),
)
@example(number=3, channels=24, outputs=64, height=31, width=31, seed=0)
@example(number=250, channels=16, outputs=48, height=3, width=4, seed=0)  # more tiles than a thread takes at a time
def test_any_shape(number: int, channels: int, outputs: int, height: int, width: int, seed: int) -> None:
    check(number, channels, outputs, height, width, seed, pool=False)


@settings(max_examples=40, deadline=None)
@given(
    number=st.integers(1, 7),
    channels=st.integers(1, 40),
    slices=st.integers(1, 4),
    height=st.integers(2, 18),
    width=st.integers(2, 18),
    seed=st.integers(0, 100),
)
@example(number=2, channels=24, slices=4, height=31, width=31, seed=0)
def test_any_shape_pooled(number: int, channels: int, slices: int, height: int, width: int, seed: int) -> None:
    check(number, channels, 16 * slices, height, width, seed, pool=True)


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("channels", [20, 32, 80, 128])
@pytest.mark.parametrize(("height", "width"), [(13, 10), (16, 32), (7, 7)])
def test_vectors_of_256_bits_give_the_same(
    monkeypatch: pytest.MonkeyPatch, pool: bool, channels: int, height: int, width: int
) -> None:
    """Numbers of rows that 6 does not divide, and of which what is left is 2, among them."""
    monkeypatch.setattr(convolution, "has_512_bits", lambda: False)
    check(5, channels, 48, height, width, 0, pool=pool)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("channels", [16, 24, 32, 56, 80, 104, 128])
def test_sums_of_filters_end_where_they_end(
    monkeypatch: pytest.MonkeyPatch, wide: bool, half: bool, channels: int
) -> None:
    """Nothing is written behind the rows of a product: memory there belongs to the next one, or to nobody."""
    outputs, rows, images = 32, -(-channels // ROWS_OF_SUMS) * ROWS_OF_SUMS, 12
    memory = np.full(PRODUCTS * rows * 32 + 4096, 7.0, np.float32)
    sums = memory[: PRODUCTS * rows * 32].reshape(1, 1, PRODUCTS, rows, 32)
    x, gradient = noise(images, 8, 8, channels, seed=0), noise(images, 8, 8, outputs, seed=1) / 256
    none = np.empty((0, 0, 0, 0), np.uint8)
    x, gradient = x.contiguous(), gradient.contiguous()
    arrays = [x.numpy(), as_array(gradient.half()) if half else gradient.numpy()]
    kernels(half).filter_gradient(*arrays, none, sums, 8, 8, 12, 1, wide)
    assert (memory[PRODUCTS * rows * 32 :] == 7).all()
    expected = np.zeros_like(sums)
    kernels(False).filter_gradient(x.numpy(), gradient.numpy(), none, expected, 8, 8, 12, 1, True)
    assert abs(sums - expected).max() < (0.05 if half else 1e-4) * abs(expected).max()


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_images_do_not_depend_on_the_number_of_threads(threads: None) -> None:
    """Nor does anything for a given number on the number of cores: more parts than threads are done in turn."""
    x, weight = noise(9, 16, 9, 9, seed=0), noise(32, 16, 3, 3, seed=1)
    found = []
    for number in (1, 2, 5, 64):
        torch.set_num_threads(number)
        found.append(convolve(x, weight)[0])
    assert all(torch.equal(one, found[0]) for one in found)


def test_results_repeat_bit_for_bit() -> None:
    x, weight, gradient = noise(50, 24, 15, 15, seed=0), noise(64, 24, 3, 3, seed=1), noise(50, 64, 7, 7, seed=2)

    def once() -> list[Tensor]:
        y, chosen = convolve(x, weight, pool=True)
        assert chosen is not None
        return [y, chosen, input_gradient(gradient, chosen, weight, 15, 15), filter_gradient(x, gradient, chosen)]

    for first, again in zip(once(), once(), strict=True):
        assert torch.equal(first, again)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("pool", [False, True])
def test_what_is_not_a_number_stays_visible(pool: bool, half: bool) -> None:
    x, weight = noise(2, 16, 8, 8, seed=0), noise(16, 16, 3, 3, seed=1)
    x[1, 3, 4, 4] = float("nan")
    y, _ = convolve(x, weight, pool=pool, half=half)
    assert y[1].isnan().any()
    assert not y[0].isnan().any()


def test_any_memory_format_of_input_weight_and_gradient() -> None:
    x, weight, gradient = noise(2, 16, 9, 9, seed=0), noise(32, 16, 3, 3, seed=1), noise(2, 32, 9, 9, seed=2)
    plain = [t.contiguous() for t in (x, weight, gradient)]
    assert torch.equal(convolve(plain[0], plain[1])[0], convolve(x, weight)[0])
    assert torch.equal(input_gradient(plain[2], None, plain[1], 9, 9), input_gradient(gradient, None, weight, 9, 9))
    assert torch.equal(filter_gradient(plain[0], plain[2], None), filter_gradient(x, gradient, None))


def check_halves(
    number: int, channels: int, outputs: int, height: int, width: int, seed: int, tolerance: float, *, pool: bool
) -> None:
    x = F.gelu(noise(number, channels, height, width, seed=seed))
    weight = noise(outputs, channels, 3, 3, seed=seed + 1) / (9 * channels) ** 0.5
    exact, exact_chosen = convolve(x, weight, pool=pool)
    found, chosen = convolve(x, weight, pool=pool, half=True)
    assert found.dtype == torch.float16
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert off_by(found, exact) < tolerance
    if chosen is not None:
        assert exact_chosen is not None
        assert (chosen != exact_chosen).sum() <= 2 + 0.01 * chosen.numel()
    gradient = (noise(*found.shape, seed=seed + 2) / 16).half()
    to_x = input_gradient(gradient.float(), chosen, weight, height, width)
    assert off_by(input_gradient(gradient, chosen, weight, height, width, half=True, factor=0.25), to_x / 4) < tolerance
    to_weight = filter_gradient(x, gradient.float(), chosen)
    assert off_by(filter_gradient(x, gradient, chosen, half=True, factor=0.25), to_weight / 4) < tolerance


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize(("channels", "outputs"), [(24, 64), (200, 48), (32, 96)])
def test_float16_is_within_a_percent(channels: int, outputs: int, pool: bool) -> None:
    check_halves(9, channels, outputs, 15, 11, 0, 0.01, pool=pool)


@pytest.mark.parametrize("pool", [False, True])
def test_float16_of_more_products_than_are_summed_in_it(pool: bool) -> None:
    """Of inputs, in a convolution and the way back to its input, and of an image's tiles, for the filters."""
    check_halves(2, 230, 240, 9, 9, 0, 0.01, pool=pool)
    check_halves(3, 24, 64, 45, 41, 0, 0.01, pool=pool)


@settings(max_examples=40, deadline=None)
@given(
    number=st.integers(1, 7),
    channels=st.integers(1, 70),
    slices=st.integers(2, 5),
    odd=st.integers(0, 15),
    height=st.integers(1, 18),
    width=st.integers(1, 18),
    seed=st.integers(0, 100),
)
@example(number=200, channels=48, slices=3, odd=0, height=7, width=4, seed=0)
def test_float16_for_any_shape(
    number: int, channels: int, slices: int, odd: int, height: int, width: int, seed: int
) -> None:
    tolerance = 0.015 if min(channels, height, width) > 8 else 0.04  # in sums of a few products little averages out
    if min(height, width) > 1:
        check_halves(number, channels, 16 * slices, height, width, seed, tolerance, pool=True)
    check_halves(number, channels, 16 * slices - odd, height, width, seed, tolerance, pool=False)
