"""conv, pool, batch norm and activation in our kernels against torch's in float64; and when torch's are taken."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from fastcifar.config import CpuKernels, ResNetConfig, SpeedNetConfig
from fastcifar.models.build import build_model, use_kernels
from fastcifar.nn.conv_norm_act import conv_norm_act, serves, warm_up
from fastcifar.nn.norm_act import KINDS, LIMIT
from fastcifar.nn.norm_act import kernels as norm_kernels
from fastcifar.nn.winograd.convolution import as_array
from fastcifar.nn.winograd.kernels import kernels as convolution_kernels

SHAPES = [
    (6, 24, 32, 9, 8),
    (3, 16, 48, 5, 5),
    (2, 40, 16, 1, 2),
    (7, 16, 16, 2, 2),
]  # number, channels, outputs, sides


def layers(channels: int, outputs: int, *, bias: bool, seed: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        conv, norm = nn.Conv2d(channels, outputs, 3, padding=1, bias=bias), nn.BatchNorm2d(outputs, momentum=0.3)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return conv.to(memory_format=torch.channels_last), norm


def image(*shape: int, seed: int) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last)


def close(found: Tensor | None, expected: Tensor | None, tolerance: float = 3e-5) -> bool:
    assert found is not None
    assert expected is not None
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1e-3))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("activation", ["gelu", "silu", "relu"])
def test_training_and_evaluation_equal_torch_s(
    shape: tuple[int, int, int, int, int], bias: bool, pool: bool, activation: str
) -> None:
    number, channels, outputs, height, width = shape
    if pool and min(height, width) < 2:
        pytest.skip("nothing to pool")
    conv, norm = layers(channels, outputs, bias=bias, seed=0)
    double = copy.deepcopy(conv).double(), copy.deepcopy(norm).double()
    x = image(number, channels, height, width, seed=1).requires_grad_()
    expected_x = x.detach().double().requires_grad_()
    found = conv_norm_act(x, conv, norm, activation, pool=pool, kernels="winograd")
    expected = conv_norm_act(expected_x, *double, activation, pool=pool)
    assert type(found.grad_fn).__name__ == "_TrainedBackward"
    gradient = image(*found.shape, seed=2)
    found.backward(gradient)
    expected.backward(gradient.double())
    assert close(found, expected)
    assert close(norm.running_mean, double[1].running_mean)
    assert close(norm.running_var, double[1].running_var)
    assert norm.num_batches_tracked == 1
    if outputs * number * height * width > 1000:  # of a handful of pixels the variance may be close to nothing
        assert close(x.grad, expected_x.grad, 1e-3 if pool or activation == "relu" else 1e-4)
        assert close(conv.weight.grad, double[0].weight.grad, 1e-3)
        assert close(norm.weight.grad, double[1].weight.grad, 1e-3)
        assert close(norm.bias.grad, double[1].bias.grad, 1e-3)
    if bias:
        assert conv.bias is not None
        assert conv.bias.grad is not None
        assert not conv.bias.grad.any()  # the mean takes it off again
    for layer in (conv, norm, *double):
        layer.eval()
    with torch.no_grad():
        found = conv_norm_act(x, conv, norm, activation, pool=pool, kernels="winograd")
        assert close(found, conv_norm_act(expected_x, *double, activation, pool=pool))


@settings(max_examples=25, deadline=None)
@given(mean=st.floats(-1e4, 1e4), spread=st.floats(1e-2, 1e2), seed=st.integers(0, 99))
def test_statistics_of_values_far_from_zero(mean: float, spread: float, seed: int) -> None:
    """Sums of squares around the first value, not around zero: little cancels."""
    conv, norm = layers(16, 16, bias=False, seed=0)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[range(16), range(16), 1, 1] = 1
    x = image(20, 16, 6, 6, seed=seed) * spread + mean
    conv_norm_act(x, conv, norm, "relu", kernels="winograd")
    expected = x.double().var((0, 2, 3))
    assert norm.running_var is not None
    found = (norm.running_var.double() - 0.7) / 0.3
    rounding = (3e-6 * abs(mean)) ** 2 + 1e-5  # of the inputs, and of the running statistics themselves
    assert (found - expected).abs().max() < 0.01 * expected.max() + 10 * rounding


def test_only_what_is_wanted_gets_a_gradient() -> None:
    conv, norm = layers(16, 32, bias=False, seed=0)
    norm.weight.requires_grad_(False)
    x = image(4, 16, 8, 8, seed=0)
    conv_norm_act(x, conv, norm, "gelu", kernels="winograd").sum().backward()
    assert conv.weight.grad is not None
    assert norm.weight.grad is None
    assert x.grad is None


def test_a_gradient_of_a_gradient_is_refused() -> None:
    conv, norm = layers(16, 16, bias=False, seed=0)
    x = image(2, 16, 6, 6, seed=0).requires_grad_()
    gradient = torch.ones(2, 16, 6, 6).requires_grad_()
    y = conv_norm_act(x, conv, norm, "gelu", kernels="winograd")
    (slope,) = torch.autograd.grad(y, x, gradient, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_when_torch_s_layers_are_taken() -> None:
    conv, norm = layers(16, 32, bias=False, seed=0)
    x = image(2, 16, 6, 6, seed=0)
    assert serves(x, conv, norm, pool=True)
    assert not serves(x.double(), conv, norm, pool=False)
    assert not serves(x.to("meta"), conv, norm, pool=False)
    assert not serves(x[:0], conv, norm, pool=False)
    assert not serves(x[:, :, :1], conv, norm, pool=True)
    assert not serves(x, conv, norm.eval(), pool=False)  # with gradients, by running statistics
    with torch.no_grad():
        assert serves(x, conv, norm, pool=False)
    norm.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not serves(x, conv, norm, pool=False)
    for other in (
        nn.Conv2d(16, 32, 3, padding=0),
        nn.Conv2d(16, 32, 3, padding=1, stride=2),
        nn.Conv2d(16, 32, 3, padding=1, groups=2),
        nn.Conv2d(16, 32, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(16, 32, 5, padding=1),
        nn.Conv2d(3, 32, 3, padding=1),
        nn.Conv2d(16, 24, 3, padding=1),
    ):
        assert not serves(x, other, norm, pool=False)
    for other in (
        nn.BatchNorm2d(32, affine=False),
        nn.BatchNorm2d(32, momentum=None),
        nn.BatchNorm2d(32, track_running_stats=False),
    ):
        assert not serves(x, conv, other, pool=False)
    assert not serves(x[:1, :, :3, :3], conv, norm, pool=True)  # one value a channel: torch refuses it
    assert not serves(image(2, 24, 6, 6, seed=0), conv, norm, pool=False)  # torch says that shapes do not fit
    assert not serves(x, conv, nn.BatchNorm2d(48), pool=False)
    assert not serves(x, conv, nn.BatchNorm2d(32).double(), pool=False)
    assert type(conv_norm_act(x, conv, norm, "relu", kernels="torch").grad_fn).__name__ != "_TrainedBackward"


@pytest.mark.parametrize("kernels", ["winograd", "winograd-fp16"])
def test_warming_up_compiles_all_that_a_training_calls(kernels: CpuKernels) -> None:
    """Or its first step would, on the run's clock."""
    warm_up(kernels)
    compiled = [
        *convolution_kernels(kernels == "winograd-fp16"),
        *norm_kernels(kernels == "winograd-fp16"),
        norm_kernels(False).apply,
    ]
    before = [len(kernel.signatures) for kernel in compiled]  # type: ignore[attr-defined]
    model = build_model(SpeedNetConfig(widths=(16, 32, 48)), 10, 0)
    use_kernels(model, kernels)
    images = image(3, 3, 32, 32, seed=0)
    model.train()(images).sum().backward()
    with torch.inference_mode():
        model.eval()(images)
    assert [len(kernel.signatures) for kernel in compiled] == before  # type: ignore[attr-defined]
    forward_and_back = 2 if kernels == "winograd-fp16" else 1  # to float16 and from it
    assert before == [forward_and_back] + [1] * (len(compiled) - 1)


@pytest.mark.parametrize("config", [SpeedNetConfig(widths=(16, 32, 48)), ResNetConfig(width=16, conv_bias=True)])
def test_a_network_s_gradients_are_those_of_torch_s_layers(config: SpeedNetConfig | ResNetConfig) -> None:
    images, labels = image(40, 3, 32, 32, seed=3), torch.arange(40) % 10
    found = {}
    for own in (False, True):
        model = build_model(config, 10, 1).train()
        if own:
            use_kernels(model, "winograd")
        F.cross_entropy(model(images), labels).backward()
        found[own] = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for name, expected in found[False].items():
        if ".bias" not in name or "conv" not in name:  # a convolution's bias has none but rounding
            error = (found[True][name] - expected).norm() / expected.norm()
            assert error < 0.02, name  # where a maximum is as good as shared, either may be taken


@pytest.mark.parametrize("pool", [False, True])
def test_training_in_float16(pool: bool) -> None:
    """Within two percent of float32; and gradients as small as they come are brought to where float16 is fine."""
    x = image(8, 32, 13, 10, seed=0)
    found = {}
    for kernels, size in (
        ("winograd", 1.0),
        ("winograd-fp16", 1.0),
        ("winograd-fp16", 2.0**-40),
        ("winograd-fp16", 0.0),
    ):
        conv, norm = layers(32, 48, bias=False, seed=1)
        leaf = x.clone().requires_grad_()
        y = conv_norm_act(leaf, conv, norm, "gelu", pool=pool, kernels=kernels)  # type: ignore[arg-type]
        y.backward(image(*y.shape, seed=2) * size)
        found[kernels, size] = [y.detach(), leaf.grad, conv.weight.grad, norm.weight.grad, norm.bias.grad]
    for exact, rounded in zip(found["winograd", 1.0], found["winograd-fp16", 1.0], strict=True):
        assert (exact - rounded).norm() < (0.1 if pool else 0.02) * exact.norm()  # of equal maxima either may be taken
    for large, small in zip(found["winograd-fp16", 1.0][1:], found["winograd-fp16", 2.0**-40][1:], strict=True):
        torch.testing.assert_close(small * 2.0**40, large, rtol=1e-4, atol=1e-5)
    assert not any(gradient.any() for gradient in found["winograd-fp16", 0.0][1:])


def test_warming_up_draws_nothing() -> None:
    before = torch.get_rng_state()
    warm_up("winograd")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kernels", ["winograd", "winograd-fp16"])
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_is_not_finite_reaches_the_gradients(kernels: CpuKernels, broken: float) -> None:
    conv, norm = layers(16, 32, bias=False, seed=0)
    y = conv_norm_act(image(3, 16, 8, 8, seed=0), conv, norm, "gelu", kernels=kernels)
    gradient = image(*y.shape, seed=1)
    gradient[1, 2, 3, 4] = broken
    y.backward(gradient)
    assert conv.weight.grad is not None
    assert not conv.weight.grad.isfinite().all()


def test_gradients_beyond_the_limit_of_float16_are_cut_off() -> None:
    """Products of larger ones would not be finite; what is not a number stays so."""
    gradient = torch.tensor([1e6, -1e6, 0.25, math.nan]).repeat(4)[None].contiguous()
    z, out = torch.ones(1, 16, dtype=torch.float16), torch.empty(1, 16, dtype=torch.float16)
    one, zero = torch.ones(16).numpy(), torch.zeros(16).numpy()
    norm_kernels(True).gradient(
        KINDS["relu"], gradient.numpy(), as_array(z), one, zero, zero, one, zero, zero, as_array(out), 1
    )
    expected = torch.tensor([LIMIT, -LIMIT, 0.25, math.nan], dtype=torch.float16).repeat(4)[None]
    assert torch.equal(out.nan_to_num(nan=7), expected.nan_to_num(nan=7))
