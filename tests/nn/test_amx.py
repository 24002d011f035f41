"""AMX convolutions and their gradients against torch's in float64, of factors rounded as the kernels round them."""

import copy

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tensors import needs_amx, noise
from test_conv_norm_act import assert_close, layers
from test_convolution import pooling_windows
from torch import Tensor, nn
from torch.nn import functional as F

from fastcifar.models.build import build_model, use_kernels
from fastcifar.models.resnet import ResNetConfig
from fastcifar.models.resnet18 import ResNet18Config
from fastcifar.nn.amx.convolution import convolve, filter_gradient, input_gradient
from fastcifar.nn.conv_norm_act import conv_norm_act

pytestmark = needs_amx
FP32, FP16 = torch.finfo(torch.float32).eps, torch.finfo(torch.float16).eps


def rounded(x: Tensor) -> Tensor:
    return x.bfloat16().double()


def assert_sums(found: Tensor, expected: Tensor, size: Tensor, *, fp16: bool = False) -> None:
    """`size`: the sum of the absolute products of each result, which bounds the error of a float32 sum."""
    bound = 64 * FP32 * size + (FP16 * expected.abs() + 1e-7 if fp16 else 0)
    assert found.shape == expected.shape
    assert ((found.double() - expected).abs() <= bound).all()


@settings(max_examples=40, deadline=None)
@given(
    number=st.integers(1, 7),
    channels=st.integers(1, 70),
    outputs=st.integers(1, 70),
    sides=st.tuples(st.integers(1, 18), st.integers(1, 18)),
    padding=st.sampled_from([0, 1]),
    pool=st.booleans(),
)
@example(number=2, channels=3, outputs=64, sides=(32, 32), padding=1, pool=False)
@example(number=65, channels=160, outputs=33, sides=(4, 4), padding=1, pool=False)  # more than a thread takes at a time
@example(number=3, channels=40, outputs=96, sides=(16, 16), padding=0, pool=True)
def test_convolution_and_gradients(
    number: int, channels: int, outputs: int, sides: tuple[int, int], padding: int, pool: bool
) -> None:
    least = (2 if pool else 1) + 2 - 2 * padding
    height, width = (max(least, side) for side in sides)
    outputs = -(-outputs // 16) * 16 if pool else outputs
    x, weight = noise(number, channels, height, width, seed=0), noise(outputs, channels, 3, 3, seed=1) / 8
    y, pool_indices = convolve(x, weight, pool=pool, padding=padding)
    assert y.dtype == torch.float16
    assert y.is_contiguous(memory_format=torch.channels_last)

    def forward(x: Tensor, weight: Tensor) -> Tensor:
        out = F.conv2d(x, weight, padding=padding)
        if pool_indices is None:
            return out
        return pooling_windows(out).gather(4, pool_indices.permute(0, 3, 1, 2).long()[..., None]).squeeze(4)

    exact = rounded(x).requires_grad_(), rounded(weight).requires_grad_()
    expected = forward(*exact)
    size = F.conv2d(x.abs(), weight.abs(), padding=padding).max() * 1.02
    if pool_indices is not None:
        largest = pooling_windows(F.conv2d(*exact, padding=padding)).amax(4)
        assert_sums(expected.detach(), largest.detach(), size)
    assert_sums(y, expected.detach(), size, fp16=True)

    gradient = noise(*y.shape, seed=2).half()
    to_x, to_weight = torch.autograd.grad(expected, exact, rounded(gradient))
    positive = x.abs().double().requires_grad_(), weight.abs().double().requires_grad_()
    sizes = torch.autograd.grad(forward(*positive), positive, gradient.abs().double())
    options = {"scale": 0.25, "padding": padding}
    found = input_gradient(gradient, pool_indices, weight, (height, width), **options)
    assert_sums(found, to_x / 4, sizes[0] + 1e-3)
    assert_sums(filter_gradient(x, gradient, pool_indices, **options), to_weight / 4, sizes[1] + 1e-3)


def test_nan_and_infinity_stay_visible() -> None:
    x, weight = noise(2, 16, 8, 8, seed=0), noise(32, 16, 3, 3, seed=1)
    x[1, 3, 4, 4] = torch.nan
    y, _ = convolve(x, weight, pool=True)
    assert y[0].isfinite().all()
    assert y[1].isnan().any()
    gradient = torch.full_like(y, torch.inf)
    assert not input_gradient(gradient, torch.zeros(2, 4, 4, 32, dtype=torch.uint8), weight, (8, 8)).isfinite().all()


def test_outputs_do_not_depend_on_the_number_of_threads() -> None:
    x, weight, before = noise(5, 24, 9, 9, seed=0), noise(32, 24, 3, 3, seed=1), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            y, _ = convolve(x, weight)
            results.append((y, input_gradient(y, None, weight, (9, 9)), filter_gradient(x, y, None)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert torch.equal(other[0], results[0][0])
        assert torch.equal(other[1], results[0][1])
        assert_close(other[2], results[0][2], 1e-5)


@pytest.mark.parametrize("padding", [0, 1])
def test_fused_layers_match_torch_s(padding: int) -> None:
    conv, norm = layers(24, 32)
    conv.padding = (padding, padding)
    double = copy.deepcopy(conv).double(), copy.deepcopy(norm).double()
    x = noise(6, 24, 9, 8, seed=1).bfloat16().float().requires_grad_()
    expected_x = x.detach().double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = conv_norm_act(x, conv, norm, "silu", kernels="amx")
    expected = conv_norm_act(expected_x, *double, "silu")
    assert type(found.grad_fn).__name__ == "_ConvNormActBackward"
    gradient = noise(*found.shape, seed=2)
    found.backward(gradient)
    expected.backward(gradient.double())
    assert_close(found, expected, 0.02)
    assert_close(norm.running_var, double[1].running_var, 0.02)
    assert_close(x.grad, expected_x.grad, 0.04)
    assert_close(conv.weight.grad, double[0].weight.grad, 0.04)


@pytest.mark.parametrize(
    "config", [ResNet18Config(), ResNetConfig(width=16, layer2_padding=0, layer3_pool=False)], ids=["resnet18", "b"]
)
def test_all_3x3_convolutions_of_stride_1_run_in_the_kernels(config: ResNetConfig | ResNet18Config) -> None:
    model = build_model(config, 10, seed=0)
    use_kernels(model, "amx")
    strided = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)]
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(noise(4, 3, 32, 32, seed=0))
    names, waiting = set(), [logits.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in names:
            names.add(node)
            waiting += [following for following, _ in node.next_functions]
    assert sum("ConvolutionBackward" in type(node).__name__ for node in names) == len(strided)
