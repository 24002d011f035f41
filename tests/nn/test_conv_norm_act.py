"""conv, pool, batch norm and activation in the fused kernels against torch's in float64; when torch's layers run."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensors import KERNELS, needs_fp16, noise
from torch import Tensor, nn
from torch.nn import functional as F

from fastcifar.config import CpuKernels
from fastcifar.models.build import build_model, use_kernels
from fastcifar.models.resnet import ResNetConfig
from fastcifar.models.speednet import SpeedNetConfig
from fastcifar.nn.arrays import as_array
from fastcifar.nn.conv_norm_act import conv_norm_act, serves, warm_up
from fastcifar.nn.norm_act import ACTIVATION_INDEX, FP16_LIMIT
from fastcifar.nn.norm_act import kernels as norm_kernels
from fastcifar.nn.winograd.kernels import kernels as convolution_kernels

EPS = torch.finfo(torch.float32).eps


def layers(channels: int, outputs: int, *, bias: bool = False, seed: int = 0) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        conv, norm = nn.Conv2d(channels, outputs, 3, padding=1, bias=bias), nn.BatchNorm2d(outputs, momentum=0.3)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return conv.to(memory_format=torch.channels_last), norm


def assert_close(found: Tensor | None, expected: Tensor | None, tolerance: float, *, fraction: float = 1.0) -> None:
    """Errors relative to the largest value, of this fraction of the elements."""
    assert found is not None
    assert expected is not None
    errors = (found - expected).detach().abs().flatten() / expected.detach().abs().max().clamp(min=1e-3)
    assert errors.double().quantile(fraction) <= tolerance


@pytest.mark.parametrize("shape", [(6, 24, 32, 9, 8), (12, 16, 48, 5, 5), (2, 40, 16, 1, 2), (7, 16, 16, 2, 2)])
@pytest.mark.parametrize(("activation", "bias"), [("gelu", False), ("silu", True), ("relu", False)])
@pytest.mark.parametrize("pool", [False, True])
def test_training_and_evaluation_match_torch_in_float64(
    shape: tuple[int, int, int, int, int], activation: str, bias: bool, pool: bool
) -> None:
    number, channels, outputs, height, width = shape
    if pool and min(height, width) < 2:
        pytest.skip("nothing to pool")
    conv, norm = layers(channels, outputs, bias=bias)
    double = copy.deepcopy(conv).double(), copy.deepcopy(norm).double()
    x = noise(number, channels, height, width, seed=1).requires_grad_()
    expected_x = x.detach().double().requires_grad_()
    found = conv_norm_act(x, conv, norm, activation, pool=pool, kernels="winograd")
    expected = conv_norm_act(expected_x, *double, activation, pool=pool)
    assert type(found.grad_fn).__name__ == "_ConvNormActBackward"
    gradient = noise(*found.shape, seed=2)
    found.backward(gradient)
    expected.backward(gradient.double())
    assert_close(found, expected, 256 * EPS)
    assert_close(norm.running_mean, double[1].running_mean, 256 * EPS)
    assert_close(norm.running_var, double[1].running_var, 256 * EPS)
    assert norm.num_batches_tracked == 1
    if height > 4:  # of a few pixels the variance may be close to zero
        # a tie between maxima, or at the kink of ReLU, may be decided differently: all of a filter's gradients change
        fraction = 0.8 if pool or activation == "relu" else 1.0
        pairs = zip((conv, norm), double, strict=True)
        assert_close(x.grad, expected_x.grad, 8192 * EPS, fraction=fraction)
        for ours, theirs in pairs:
            assert_close(ours.weight.grad, theirs.weight.grad, 8192 * EPS, fraction=fraction)
        assert_close(norm.bias.grad, double[1].bias.grad, 8192 * EPS, fraction=fraction)
    if bias:
        assert conv.bias is not None
        assert conv.bias.grad is not None
        assert not conv.bias.grad.any()  # the norm subtracts it with the mean
    for layer in (conv, norm, *double):
        layer.eval()
    with torch.no_grad():
        found = conv_norm_act(x, conv, norm, activation, pool=pool, kernels="winograd")
        assert_close(found, conv_norm_act(expected_x, *double, activation, pool=pool), 256 * EPS)


@settings(max_examples=15, deadline=None)
@given(mean=st.floats(-1e4, 1e4), std=st.floats(1e-2, 1e2), seed=st.integers(0, 99))
def test_variance_of_values_far_from_zero(mean: float, std: float, seed: int) -> None:
    """Squares are summed around the first value, not around zero, so that little cancels."""
    conv, norm = layers(16, 16)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[range(16), range(16), 1, 1] = 1
    x = noise(20, 16, 6, 6, seed=seed) * std + mean
    conv_norm_act(x, conv, norm, "relu", kernels="winograd")
    expected = x.double().var((0, 2, 3))
    assert norm.running_var is not None
    found = (norm.running_var.double() - 0.7) / 0.3
    rounding = (24 * EPS * abs(mean)) ** 2 + 84 * EPS  # of the inputs, and of the running statistics themselves
    assert (found - expected).abs().max() < 0.01 * expected.max() + 10 * rounding


def test_only_what_needs_a_gradient_gets_one() -> None:
    conv, norm = layers(16, 32)
    norm.weight.requires_grad_(False)
    x = noise(4, 16, 8, 8, seed=0)
    conv_norm_act(x, conv, norm, "gelu", kernels="winograd").sum().backward()
    assert conv.weight.grad is not None
    assert norm.weight.grad is None
    assert x.grad is None


def test_second_derivatives_are_refused() -> None:
    conv, norm = layers(16, 16)
    x = noise(2, 16, 6, 6, seed=0).requires_grad_()
    gradient = torch.ones(2, 16, 6, 6).requires_grad_()
    y = conv_norm_act(x, conv, norm, "gelu", kernels="winograd")
    (slope,) = torch.autograd.grad(y, x, gradient, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_when_torch_s_layers_run() -> None:
    conv, norm = layers(16, 32)
    x = noise(2, 16, 6, 6, seed=0)
    assert serves(x, conv, norm, pool=True)
    assert not serves(x[:, :, :1], conv, norm, pool=True)
    assert not serves(x[:1, :, :3, :3], conv, norm, pool=True)  # one value a channel: torch refuses it
    for other in (x.double(), x.to("meta"), x[:0], noise(2, 24, 6, 6, seed=0)):
        assert not serves(other, conv, norm, pool=False)
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
        nn.BatchNorm2d(48),
        nn.BatchNorm2d(32).double(),
    ):
        assert not serves(x, conv, other, pool=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not serves(x, conv, norm, pool=False)
    assert not serves(x, conv, norm.eval(), pool=False)  # gradients through running statistics
    with torch.no_grad():
        assert serves(x, conv, norm, pool=False)


@pytest.mark.parametrize("kernels", KERNELS)
def test_warm_up_compiles_all_that_a_training_calls_and_draws_nothing(kernels: CpuKernels) -> None:
    """Or the first step would, on the run's clock."""
    state = torch.get_rng_state()
    warm_up(kernels)
    assert torch.equal(torch.get_rng_state(), state)
    fp16 = kernels == "winograd-fp16"
    compiled = [*convolution_kernels(fp16), *norm_kernels(fp16), norm_kernels(False).apply]
    before = [len(kernel.signatures) for kernel in compiled]  # type: ignore[attr-defined]
    model = build_model(SpeedNetConfig(widths=(16, 32, 48)), 10, 0)
    use_kernels(model, kernels)
    images = noise(3, 3, 32, 32, seed=0)
    model.train()(images).sum().backward()
    with torch.inference_mode():
        model.eval()(images)
    assert all(before)
    assert [len(kernel.signatures) for kernel in compiled] == before  # type: ignore[attr-defined]


@pytest.mark.parametrize("config", [SpeedNetConfig(widths=(16, 32, 48)), ResNetConfig(width=16, conv_bias=True)])
def test_gradients_of_a_network_match_torch_in_float64(config: SpeedNetConfig | ResNetConfig) -> None:
    images, labels = noise(20, 3, 32, 32, seed=3), torch.arange(20) % 10
    found = []
    for kernels, dtype in (("torch", torch.float64), ("winograd", torch.float32)):
        model = build_model(config, 10, 1).train().to(dtype)
        use_kernels(model, kernels)  # type: ignore[arg-type]
        F.cross_entropy(model(images.to(dtype)), labels).backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    for name, expected in found[0].items():
        if ".bias" not in name or "conv" not in name:  # that of a convolution's bias is rounding only
            error = (found[1][name] - expected).norm() / expected.norm()
            assert error < 0.05, name  # a tie between maxima may be decided differently


@needs_fp16
@pytest.mark.parametrize("pool", [False, True])
def test_training_in_float16(pool: bool) -> None:
    """Within a few percent of float32; tiny gradients are scaled to where float16 is precise, zeros stay zero."""
    x = noise(8, 32, 13, 10, seed=0)

    def gradients(kernels: CpuKernels, size: float) -> list[Tensor]:
        conv, norm = layers(32, 48, seed=1)
        leaf = x.clone().requires_grad_()
        y = conv_norm_act(leaf, conv, norm, "gelu", pool=pool, kernels=kernels)
        return [
            y.detach(),
            *torch.autograd.grad(y, (leaf, conv.weight, norm.weight, norm.bias), noise(*y.shape, seed=2) * size),
        ]

    large = gradients("winograd-fp16", 1.0)
    for exact, rounded in zip(gradients("winograd", 1.0), large, strict=True):
        assert (exact - rounded).norm() < (0.1 if pool else 0.02) * exact.norm()  # ties between maxima
    for expected, small in zip(large[1:], gradients("winograd-fp16", 2.0**-40)[1:], strict=True):
        torch.testing.assert_close(small * 2.0**40, expected, rtol=1e-4, atol=1e-5)
    assert not any(gradient.any() for gradient in gradients("winograd-fp16", 0.0)[1:])


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_gradients_that_are_not_finite_stay_visible(kernels: CpuKernels, broken: float) -> None:
    conv, norm = layers(16, 32)
    y = conv_norm_act(noise(3, 16, 8, 8, seed=0), conv, norm, "gelu", kernels=kernels)
    gradient = noise(*y.shape, seed=1)
    gradient[1, 2, 3, 4] = broken
    y.backward(gradient)
    assert conv.weight.grad is not None
    assert not conv.weight.grad.isfinite().all()


@needs_fp16
def test_float16_gradients_are_clamped_and_nan_stays() -> None:
    gradient = torch.tensor([1e6, -1e6, 0.25, math.nan]).repeat(4)[None].contiguous()
    z, out = torch.ones(1, 16, dtype=torch.float16), torch.empty(1, 16, dtype=torch.float16)
    one, zero = torch.ones(16).numpy(), torch.zeros(16).numpy()
    norm_kernels(True).gradient(
        ACTIVATION_INDEX["relu"], gradient.numpy(), as_array(z), one, zero, zero, one, zero, zero, as_array(out), 1
    )
    expected = torch.tensor([FP16_LIMIT, -FP16_LIMIT, 0.25, math.nan], dtype=torch.float16).repeat(4)[None]
    torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)
