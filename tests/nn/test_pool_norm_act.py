"""Pool, batch norm and activation, compiled or without the count of batches, against PyTorch's modules."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tensors import noise
from torch import Tensor, nn
from torch.nn import functional as F

from fastcifar.models.build import build_model, use_kernels
from fastcifar.models.speednet import SpeedNetConfig
from fastcifar.nn import pool_norm_act as module
from fastcifar.nn.conv_norm_act import conv_norm_act
from fastcifar.nn.pool_norm_act import calls_function, pool_norm_act

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
COMPILERS = [
    ("cpu", "aot_eager"),
    pytest.param("cpu", "inductor", marks=pytest.mark.slow),
    pytest.param("cuda", "inductor", marks=pytest.mark.gpu),
]
CASES = [
    (torch.float32, "gelu", True),
    (torch.float32, "relu", False),
    (torch.float32, "silu", True),
    (torch.bfloat16, "gelu", False),
    (torch.bfloat16, "relu", True),
    (torch.bfloat16, "silu", False),
]
# torch's compiler hides this warning, but cannot if warnings are errors
compiles = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")


def layers(device: str) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        conv, norm = nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32, momentum=0.3)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return conv.to(memory_format=torch.channels_last).to(device), norm.to(device)


def results(kernels: Any, device: str, dtype: torch.dtype, activation: str, pool: bool) -> list[Tensor | None]:
    """Output, gradients and running statistics of a step of training; the output of the network thus trained."""
    conv, norm = layers(device)
    x = noise(8, 16, 11, 10, seed=1).to(device).requires_grad_()
    between: list[Tensor] = []
    handle = conv.register_forward_hook(lambda _conv, _x, output: output.register_hook(between.append) and None)
    with torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32):
        y = conv_norm_act(x, conv, norm, activation, pool=pool, kernels=kernels)
    handle.remove()
    y.backward(noise(*y.shape, seed=2).to(y))
    assert y.dtype == between[0].dtype == dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert between[0].is_contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        later = conv_norm_act(x, conv.eval(), norm.eval(), activation, pool=pool, kernels=kernels)
    gradients = [x.grad, conv.weight.grad, norm.weight.grad, norm.bias.grad]
    return [y.detach(), *gradients, norm.running_mean, norm.running_var, later]


@compiles
@pytest.mark.parametrize(("device", "backend"), COMPILERS)
def test_compiled_layers_compute_what_pytorch_s_do(device: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    monkeypatch.setattr(module, "BACKEND", counting(backend, counted))
    for dtype, activation, pool in CASES:
        # a 16-bit result that is rounded once less is another, and may decide on another side of ReLU's kink
        tolerance = 1e-5 if dtype == torch.float32 and device == "cpu" else 0.02
        found = results("compiled", device, dtype, activation, pool)
        for ours, theirs in zip(found, results("torch", device, dtype, activation, pool), strict=True):
            assert ours is not None
            assert theirs is not None
            assert (ours - theirs).float().norm() <= tolerance * theirs.float().norm()
    assert len(counted) == len(CASES)  # all of them, above torch's limit as well, and none in evaluation


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("sides", [(6, 6), (7, 4), (2, 3), (5, 5)])
def test_pooling_from_operations_that_fuse(sides: tuple[int, int], device: str) -> None:
    """The bits of PyTorch's, where maxima are tied and where there are NaNs as well."""
    x = noise(4, 3, *sides, seed=0).round().to(device)
    x[0, 0, 0, 1] = x[1, 1, 1, 1] = x[2, 2, 0, 0] = torch.nan
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    ours = module._MaxPool.apply(leaves[0].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    theirs = F.max_pool2d(leaves[1], 2)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
    gradient = noise(*theirs.shape, seed=1).to(device)
    ours.backward(gradient)
    theirs.backward(gradient)
    assert leaves[0].grad is not None
    assert leaves[1].grad is not None
    assert torch.equal(leaves[0].grad, leaves[1].grad)


def counting(backend: str, counted: list[int]) -> Callable[..., Any]:
    def compile_graph(graph: Any, inputs: Any) -> Any:
        import torch._dynamo

        counted.append(1)
        return torch._dynamo.lookup_backend(backend)(graph, inputs)

    return compile_graph


@compiles
def test_more_shapes_than_torch_s_compiler_takes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    monkeypatch.setattr(module, "BACKEND", counting("eager", counted))
    for side in range(2, 14):
        pool_norm_act(noise(2, 32, side, side, seed=0), layers("cpu")[1], "relu", pool=False, compiled=True)
    assert len(counted) == 12


@compiles
def test_a_network_with_a_frozen_gain_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKEND", "aot_eager")
    found: list[dict[str, Tensor]] = []
    images = noise(4, 3, 16, 16, seed=0)
    for kernels in ("compiled", "torch"):
        model = build_model(SpeedNetConfig(widths=(8,)), 10, 0).train()
        use_kernels(model, kernels)  # type: ignore[arg-type]
        model(images).square().sum().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(*found)


def test_compiling_is_left_to_those_who_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_compiled", lambda backend: pytest.fail("compiled"))
    conv, norm = layers("cpu")
    for kernels in ("torch", "winograd"):
        conv_norm_act(noise(2, 16, 6, 6, seed=0), conv, norm, "relu", kernels=kernels)  # type: ignore[arg-type]
    conv_norm_act(noise(2, 16, 6, 6, seed=0), conv.eval(), norm.eval(), "relu", kernels="compiled")


def test_where_batches_are_not_counted() -> None:
    cpu, cuda, mps, meta = (torch.device(name) for name in ("cpu", "cuda:1", "mps", "meta"))
    norm = nn.BatchNorm2d(4)
    assert [calls_function(norm, device) for device in (cpu, cuda, mps, meta)] == [False, True, True, False]
    assert calls_function(norm, cpu, compiled=True)
    assert not calls_function(copy.copy(norm).eval(), cuda, compiled=True)
    for other in (nn.BatchNorm2d(4, momentum=None), nn.BatchNorm2d(4, track_running_stats=False)):
        assert not calls_function(other, cuda, compiled=True)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("pool", [False, True])
def test_without_the_count_all_else_keeps_its_bits(device: str, pool: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[list[Tensor]] = []
    for uncounted in (True, False):
        monkeypatch.setattr(module, "calls_function", lambda *_, compiled, uncounted=uncounted: uncounted)
        norm = layers(device)[1]
        x = noise(3, 32, 6, 6, seed=0).to(device).requires_grad_()
        y = pool_norm_act(x, norm, "gelu", pool=pool)
        y.sum().backward()
        assert norm.num_batches_tracked == (0 if uncounted else 1)
        found.append([y, x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var])  # type: ignore[list-item]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found, strict=True))
