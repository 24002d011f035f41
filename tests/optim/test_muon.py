"""Muon: orthogonalisation against the SVD, the update against its formula, and who trains which parameter."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from fastcifar.models.build import build_model
from fastcifar.models.resnet import ResNetConfig
from fastcifar.models.speednet import SpeedNetConfig
from fastcifar.optim.muon import Muon, MuonConfig, _orthogonalised, orthogonalise, products_dtype
from fastcifar.optim.rates import set_lr
from fastcifar.optim.sgd import SgdConfig


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("shape", "scale"), [((3, 8, 20), 1.0), ((2, 20, 8), 1e-3), ((1, 16, 144), 1e4), ((4, 1, 9), 1.0), ((2, 7, 1), 1.0)]
)
def test_orthogonalise_is_close_to_u_v_of_the_svd(shape: tuple[int, int, int], scale: float) -> None:
    updates = noise(*shape) * scale
    turned = orthogonalise(updates, steps=5)
    u, s, vt = torch.linalg.svd(updates, full_matrices=False)
    assert (s.min(1).values / updates.flatten(1).norm(dim=1)).min() > 0.0015  # all within reach of 5 steps
    values = torch.linalg.svdvals(turned)
    assert 0.65 < values.min() <= values.max() < 1.21
    assert torch.cosine_similarity(turned.flatten(1), (u @ vt).flatten(1)).min() > 0.95  # follows from that range
    # in the basis of the singular vectors, which stay the same, the result is diagonal
    inner = u.mT @ turned @ vt.mT
    torch.testing.assert_close(inner, torch.diag_embed(inner.diagonal(dim1=1, dim2=2)), rtol=0, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 12), columns=st.integers(1, 12), seed=st.integers(0, 1000), steps=st.sampled_from([3, 5]))
def test_large_singular_values_end_in_the_stated_band(rows: int, columns: int, seed: int, steps: int) -> None:
    updates = noise(1, rows, columns, seed=seed)
    u, s, vt = torch.linalg.svd(updates, full_matrices=False)
    relative = s / s.norm()
    found = (u.mT @ orthogonalise(updates, steps) @ vt.mT).diagonal(dim1=1, dim2=2)
    large = relative > {3: 0.017, 5: 0.0015}[steps]
    assert ((found > 0.64) & (found < 1.21))[large].all()
    assert (found <= relative * 3.4445**steps + 1e-3).all()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("steps", [3, 5])
@pytest.mark.parametrize("shape", [(2, 64, 576), (1, 128, 128), (3, 96, 24)])
def test_products_in_bfloat16_stay_in_the_band(shape: tuple[int, int, int], steps: int, device: str) -> None:
    """Singular values from 1 down to 1e-4 of the largest: rounding must not make the small ones explode."""
    u, _, vt = torch.linalg.svd(noise(*shape), full_matrices=False)
    s = torch.logspace(0, -4, min(shape[1:]))
    updates = ((u * s) @ vt).to(device)
    turned = orthogonalise(updates, steps, torch.bfloat16)
    assert turned.dtype == torch.float32
    inner = (u.mT @ turned.cpu() @ vt.mT).diagonal(dim1=1, dim2=2)
    large = s / s.norm() > {3: 0.1, 5: 0.02}[steps]
    assert ((inner > 0.55) & (inner < 1.25))[:, large].all()
    assert torch.linalg.matrix_norm(turned, 2).max() < 1.25
    exact = orthogonalise(updates, steps, torch.float32)
    assert torch.cosine_similarity(turned.flatten(1), exact.flatten(1)).min() > 0.98


def test_where_products_are_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda:1")
    capabilities = {cuda: (8, 0)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", capabilities.__getitem__)
    assert products_dtype(torch.float32, cuda) == torch.bfloat16
    assert products_dtype(torch.float32, cpu) == products_dtype(torch.bfloat16, cpu) == torch.float32
    assert products_dtype(torch.float64, cpu) == torch.float64
    capabilities[cuda] = (7, 5)
    assert products_dtype(torch.float16, cuda) == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_filters_in_half_follow_those_in_float32(dtype: torch.dtype, device: str) -> None:
    shapes = [(8, 4, 3, 3), (8, 4, 3, 3), (40, 3, 3, 3)]
    start = [noise(*shape, seed=i).to(device, memory_format=torch.channels_last) for i, shape in enumerate(shapes)]
    found: list[list[torch.Tensor]] = []
    for kind in (dtype, torch.float32):
        filters = [w.to(kind).requires_grad_() for w in start]
        muon = Muon(filters, lr=torch.tensor(0.3, device=device), momentum=0.6, steps=3)
        for step in range(3):
            for i, w in enumerate(filters):
                w.grad = noise(*w.shape, seed=10 * step + i).to(w)
            muon.step()
        assert {muon.state[w]["velocity"].dtype for w in filters} == {kind}
        assert {w.dtype for w in filters} == {kind}
        found.append([w.detach().float() for w in filters])
    for half, full in zip(*found, strict=True):
        assert (half - full).norm() < 0.02 * full.norm()


class Calls(TorchDispatchMode):
    """Counts the operations that compute something, each of which is a kernel or a few on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_number_of_operations_does_not_grow_with_that_of_the_filters(dtype: torch.dtype) -> None:
    counts = []
    for number in (2, 5):
        filters = [noise(4, 4, 3, 3).to(dtype, memory_format=torch.channels_last) for _ in range(number)]
        muon = Muon([w.requires_grad_() for w in filters], lr=torch.tensor(0.1))
        for w in filters:
            w.grad = torch.ones_like(w)
        muon.step()
        with Calls() as calls:
            muon.step()
        assert not any("_local_scalar_dense" in name for name in calls.names)  # nothing is read on the host
        counts.append(len(calls.names))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("shape", [(4, 8, 3, 3), (64, 3, 3, 3)])
def test_updates_have_the_memory_order_of_channels_last_filters(shape: tuple[int, ...]) -> None:
    """Where it differs torch._foreach_* starts a kernel for each tensor."""
    updates = [noise(*shape, seed=i).contiguous(memory_format=torch.channels_last) for i in range(2)]
    for several in (updates, updates[:1]):
        assert [u.stride() for u in _orthogonalised(several, 3)] == [u.stride() for u in several]


def test_a_batch_equals_one_matrix_at_a_time() -> None:
    updates = noise(5, 12, 30)
    alone = torch.cat([orthogonalise(update[None], 4) for update in updates])
    torch.testing.assert_close(orthogonalise(updates, 4), alone, rtol=0, atol=1e-4)


def test_a_tall_matrix_is_the_transpose_of_a_wide_one() -> None:
    updates = noise(2, 9, 30)
    torch.testing.assert_close(orthogonalise(updates.mT, 5), orthogonalise(updates, 5).mT, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 6, 20), (3, 20, 6)])
def test_0_steps_only_rescale_to_the_norm_of_an_orthogonal_matrix(shape: tuple[int, int, int]) -> None:
    updates = noise(*shape) * 7
    found = orthogonalise(updates, 0)
    torch.testing.assert_close(found.flatten(1).norm(dim=1), torch.full((shape[0],), 6**0.5))
    assert torch.cosine_similarity(found.flatten(1), updates.flatten(1)).min() > 0.999999


def test_a_zero_update_stays_zero() -> None:
    assert torch.equal(orthogonalise(torch.zeros(2, 3, 4), 5), torch.zeros(2, 3, 4))


def test_a_step_by_its_formula() -> None:
    """v = m v + g;  w = w sqrt(out) / |w| - lr lr_scale O(g + m v), over three steps and two filter shapes."""
    start = [noise(8, 4, 3, 3), noise(8, 4, 3, 3, seed=1), noise(6, 8, 3, 3, seed=2)]
    filters = [w.clone().requires_grad_() for w in start]
    muon = Muon(filters, lr=0.3, momentum=0.6, steps=3)
    expected, velocity = [w.clone() for w in start], [torch.zeros_like(w) for w in start]
    for step, lr_scale in enumerate((1.0, 0.5, 0.25)):
        for i, w in enumerate(filters):
            w.grad = noise(*w.shape, seed=10 * step + i)
            velocity[i] = 0.6 * velocity[i] + w.grad
            turned = orthogonalise((w.grad + 0.6 * velocity[i]).flatten(1)[None], 3).view(w.shape)
            expected[i] = expected[i] * len(w) ** 0.5 / expected[i].norm() - 0.3 * lr_scale * turned
        set_lr(muon, lr_scale)
        muon.step()
        for w, wanted in zip(filters, expected, strict=True):
            torch.testing.assert_close(w.detach(), wanted, rtol=0, atol=1e-4)


def test_filters_without_a_gradient_are_skipped() -> None:
    filters = [noise(4, 4, 3, 3).requires_grad_(), noise(4, 4, 3, 3).requires_grad_()]
    filters[0].grad = torch.ones(4, 4, 3, 3)
    muon = Muon(filters, lr=1.0, momentum=0.6, steps=3)
    muon.step()
    assert torch.equal(filters[1], noise(4, 4, 3, 3))
    muon.zero_grad()
    assert filters[0].grad is None


@pytest.mark.parametrize("network", [ResNetConfig(width=4, conv_bias=True), SpeedNetConfig(widths=(8, 8))])
@pytest.mark.parametrize("config", [SgdConfig(), MuonConfig()])
def test_every_learning_parameter_has_one_optimiser(
    network: ResNetConfig | SpeedNetConfig, config: SgdConfig | MuonConfig
) -> None:
    model = build_model(network, 10, 0)
    trained = [p for group in config.build(model, 5).param_groups for p in group["params"]]
    learning = [p for p in model.parameters() if p.requires_grad]
    assert len(trained) == len(learning)
    assert {id(p) for p in trained} == {id(p) for p in learning}


def test_nesterov_sgd_with_an_l2_penalty_for_the_rest() -> None:
    ours, theirs = [noise(5, 3).requires_grad_()], [noise(5, 3).requires_grad_()]
    muon = Muon(ours, lr=0.1, momentum=0.7, steps=None, weight_decay=0.01)
    sgd = torch.optim.SGD(theirs, lr=0.1, momentum=0.7, nesterov=True, weight_decay=0.01)
    for step in range(3):
        for parameters, optimizer in ((ours, muon), (theirs, sgd)):
            parameters[0].grad = noise(5, 3, seed=step)
            optimizer.step()
    assert torch.equal(ours[0], theirs[0])


def test_the_filters_are_orthogonalised_and_the_rest_is_not_each_with_its_rate() -> None:
    config = MuonConfig(lr=0.2, momentum=0.5, steps=4, bias_lr=0.04, head_lr=0.6, sgd_momentum=0.7, weight_decay=0.003)
    filters, biases, head = config.build(build_model(SpeedNetConfig(widths=(8, 8)), 10, 0), 5).param_groups
    assert (filters["lr"], filters["momentum"], filters["steps"], filters["weight_decay"]) == (0.2, 0.5, 4, 0)
    assert [{p.ndim for p in group["params"]} for group in (filters, biases, head)] == [{4}, {1}, {2}]
    for group, lr in ((biases, 5 * 0.04), (head, 5 * 0.6)):  # the gradient of the mean over 5 is 1/5 of the sum's
        assert (group["lr"], group["momentum"], group["steps"]) == (lr, 0.7, None)
        assert group["lr"] * group["weight_decay"] == pytest.approx(0.003)  # the same decay per step at any rate


def test_a_network_of_other_parameters() -> None:
    """None is left out, and a group without parameters does not exist."""
    model = torch.nn.Module()
    model.scale, model.position = torch.nn.Parameter(torch.ones(())), torch.nn.Parameter(torch.ones(1, 4, 8))
    (group,) = MuonConfig().build(model, 5).param_groups
    assert (group["name"], len(group["params"])) == ("biases", 2)


def test_the_closure_is_evaluated() -> None:
    weight = noise(4, 4, 3, 3).requires_grad_()

    def closure() -> float:
        loss = weight.square().sum()
        loss.backward()
        return loss.item()

    assert Muon([weight]).step(closure) == pytest.approx(noise(4, 4, 3, 3).square().sum().item())


def test_steps_do_not_import_torch_s_compiler() -> None:
    """It would take 0.9 s of a training of a minute."""
    code = """
import sys, torch
from fastcifar.optim.muon import Muon
weight = torch.ones(4, 3, 3, 3, requires_grad=True)
muon = Muon([weight])
weight.grad = torch.ones_like(weight)
muon.step()
muon.zero_grad()
assert weight.grad is None
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
