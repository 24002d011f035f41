"""Components of the user's that cannot take their part are refused before a folder is made, and named."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastcifar.config import (
    AugmentOp,
    Config,
    EvaluationConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
)
from fastcifar.config.registry import REGISTRIES
from fastcifar.errors import UserError
from fastcifar.optim.sgd import SgdConfig
from fastcifar.training.trainer import train


@pytest.fixture
def short(tiny: Config, tmp_path: Path) -> Config:
    return replace(tiny, epochs=0.5, optimizer=SgdConfig(lr=0.01), runs=tmp_path)


@pytest.fixture
def registered() -> Iterator[Callable[..., Any]]:
    """Registers a class as `own` in a section, and forgets it afterwards."""
    used: list[str] = []

    def register(section: str, component: type) -> Any:
        used.append(section)
        return REGISTRIES[section].register("own")(component)()

    yield register
    for section in used:
        REGISTRIES[section]._components.pop("own", None)


def network(build: Callable[[int], Any]) -> type:
    @dataclass(frozen=True)
    class Own(ModelConfig):
        def build(self, classes: int) -> nn.Module:
            return build(classes)

    return Own


def head(classes: int, *layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, classes))


class Late(nn.Module):
    """Unfreezes a layer that was frozen when the optimiser was built."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1).requires_grad_(False)
        self.inner = head(classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.conv(x))

    def before_step(self, step: int, steps_per_epoch: int) -> None:
        self.conv.requires_grad_(step >= 3)


class Pair(nn.Module):
    """Returns two results while training."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.inner = head(classes)

    def forward(self, x: Tensor) -> Any:
        return (self.inner(x), x) if self.training else self.inner(x)


@pytest.mark.parametrize(
    ("build", "shown"),
    [
        (lambda classes: None, "NoneType"),
        (lambda classes: 1 / 0, "ZeroDivisionError"),
        (lambda classes: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), "no parameter"),
        (lambda classes: head(classes + 1), r"\(2, 11\).*\(2, 10\)"),
        (lambda classes: head(classes, nn.Conv2d(4, 3, 1)), "24x24"),
        (Pair, "tuple"),
        (Late, r"conv.weight learns at step"),
    ],
)
def test_networks(build: Any, shown: str, short: Config, registered: Any) -> None:
    with pytest.raises(UserError, match=f"network own.*{shown}"):
        train(replace(short, model=registered("model", network(build))))
    assert list(short.runs.iterdir()) == []


class Counting(torch.optim.SGD):
    """Keeps a number in its groups."""

    def step(self, closure: Any = None) -> Any:
        self.param_groups[0]["count"] = self.param_groups[0].get("count", 0) + 1
        return super().step(closure)


class Number(torch.optim.SGD):
    """Keeps a number in its state."""

    def step(self, closure: Any = None) -> Any:
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["count"] = 3
        return super().step(closure)


class Lookahead(torch.optim.SGD):
    """Makes a state in its second step."""

    taken = 0

    def step(self, closure: Any = None) -> Any:
        self.taken += 1
        if self.taken == 2:
            for parameter in self.param_groups[0]["params"]:
                self.state[parameter]["slow"] = parameter.detach().clone()
        return super().step(closure)


@pytest.mark.parametrize(
    ("kind", "shown"),
    [(Counting, "resuming"), (Number, "count"), (Lookahead, "resuming"), (torch.optim.LBFGS, "closure")],
)
def test_optimizers(kind: Any, shown: str, short: Config, registered: Any) -> None:
    @dataclass(frozen=True)
    class Own(OptimizerConfig):
        def build(self, model: nn.Module, batch_size: int) -> torch.optim.Optimizer:
            return kind([p for p in model.parameters() if p.requires_grad], lr=self.lr)

    with pytest.raises(UserError, match=f"optimiser own.*{shown}"):
        train(replace(short, optimizer=registered("optimizer", Own)))
    assert list(short.runs.iterdir()) == []


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), None, "high"])
def test_schedules(value: Any, short: Config, registered: Any) -> None:
    @dataclass(frozen=True)
    class Own(ScheduleConfig):
        def lr_scale(self, step: int, total: int, epochs: float) -> float:
            return value if step == total - 1 else 1.0

    with pytest.raises(UserError, match=f"schedule.*{value}.*step 5 of 6"):
        train(replace(short, schedule=registered("schedule", Own)))
    assert list(short.runs.iterdir()) == []


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        (lambda single: single[:1], r"\(1, 10\).*\(2, 10\)"),
        (lambda single: single * float("nan"), "NaN"),
        (lambda single: None, "NoneType"),
        (lambda single: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_evaluations(result: Any, shown: str, short: Config, registered: Any) -> None:
    @dataclass(frozen=True)
    class Own(EvaluationConfig):
        def logits(self, predict: Any, batches: Any, single_view: Tensor) -> Tensor:
            return result(single_view)

    with pytest.raises(UserError, match=f"evaluation own.*{shown}"):
        train(replace(short, evaluation=registered("evaluation", Own)))
    assert list(short.runs.iterdir()) == []


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        (lambda images: images[:, :, 1:], r"\(50, 3, 23, 24\)"),
        (lambda images: images.double(), "float64"),
        (lambda images: None, "NoneType"),
    ],
)
def test_ops(result: Any, shown: str, short: Config, registered: Any) -> None:
    @dataclass(frozen=True)
    class Own(AugmentOp):
        def apply(self, images: Tensor, draws: Any) -> Tensor:
            return result(images)

    with pytest.raises(UserError, match=f"Own.*{shown}"):
        train(replace(short, augment_op=registered("augment_op", Own)))


def test_tied_weights_and_layers_on_tokens_are_saved_and_counted(short: Config, registered: Any) -> None:
    class Tied(nn.Module):
        def __init__(self, classes: int) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, classes)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            tokens = x.flatten(2).mT  # (n, s * s, 3)
            return self.head(self.second(self.first(tokens)).mean(1))

    config = replace(short, model=registered("model", network(Tied)), checkpoint_every="1")
    _, record = train(config)
    per_image = 2 * (3 * 3 * 24 * 24) * 2 + 2 * 3 * 10  # forward
    assert per_image * 2 < record["flops"] / (6 * 50) <= per_image * 3
