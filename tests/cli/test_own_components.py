"""A network and an optimiser from a file outside the package: trained, stopped, resumed, and used by every command."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fastcifar.config.registry import MODELS, OPTIMIZERS
from fastcifar.training.failures import resume_command

Command = Callable[..., Any]
NETWORK = '''
import os
import signal
from dataclasses import dataclass

import torch
from torch import nn

from fastcifar import ModelConfig, register_model


@register_model("own_net")
@dataclass(frozen=True, kw_only=True)
class OwnNet(ModelConfig):
    """A network of the user's."""

    width: int = 4
    """Channels."""

    def build(self, classes: int) -> nn.Module:
        return Net(self.width, classes)


class Net(nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.dropout, self.head = nn.Dropout(0.1), nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.conv(x).relu().mean((2, 3))))

    def before_step(self, step: int, steps_per_epoch: int) -> None:
        if step == 3 and self.training and "STOP" in os.environ:
            os.kill(os.getpid(), signal.SIGTERM)
'''
OPTIMIZER = '''
import os
import signal
from dataclasses import dataclass

import torch
from torch import nn

from fastcifar import OptimizerConfig, register_optimizer


class Stopping(torch.optim.RMSprop):
    def step(self, closure=None):
        if "STOP" in os.environ and self.state and next(iter(self.state.values()))["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().step(closure)


@register_optimizer("own_opt")
@dataclass(frozen=True, kw_only=True)
class OwnOptimizer(OptimizerConfig):
    """An optimiser of the user's."""

    lr: float = 0.001
    """Peak learning rate."""
    alpha: float = 0.9
    """Decay."""

    def build(self, model: nn.Module, batch_size: int) -> torch.optim.Optimizer:
        matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
        others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
        groups = [{"params": matrices, "name": "matrices"}, {"params": others, "lr": 2 * self.lr}]
        return Stopping(groups, lr=self.lr, alpha=self.alpha, momentum=0.5)
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with the modules; what they register is forgotten afterwards."""
    (tmp_path / "own_network.py").write_text(NETWORK)
    (tmp_path / "own_optimizer.py").write_text(OPTIMIZER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for module in ("own_network", "own_optimizer"):
        sys.modules.pop(module, None)
    MODELS._components.pop("own_net", None)
    OPTIMIZERS._components.pop("own_opt", None)


def training(data: Path, *own: object) -> list[object]:
    """A training of six steps with its own component."""
    small = ["--batch-size", 50, "--epochs", 0.5, "--resolution", 1.0, 24, "--threads", 1, "--cpu-kernels", "torch"]
    plain = ["--amp", "float32", "--device", "cpu"]
    return ["train", "--recipe", "smoke", "--data", data, *small, *plain, *own]


@pytest.mark.parametrize(
    ("module", "own"),
    [
        ("own_network", ["--model", "own_net", "--model.width", 8, "--optimizer", "sgd"]),
        ("own_optimizer", ["--optimizer", "own_opt", "--optimizer.alpha", 0.8, "--model.widths", 8, 8]),
    ],
)
def test_trained_stopped_resumed_and_used(
    module: str, own: list[object], folder: Path, small_data: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = command(*training(small_data, "--import", module, *own, "--runs", "whole"))
    assert whole.code == 0, whole.err
    (finished,) = (folder / "whole").iterdir()
    record = json.loads((finished / "record.json").read_text())
    assert list(record["imports"]) == [module]
    assert (finished / "config.toml").read_text().startswith(f'import = ["{module}"]\n')

    monkeypatch.setenv("STOP", "1")
    stopped = command(*training(small_data, "--import", module, *own, "--runs", "runs"))
    (unfinished,) = (folder / "runs").iterdir()
    assert stopped.code == 128 + 15
    assert resume_command(Path("runs") / unfinished.name) in stopped.err
    monkeypatch.delenv("STOP")
    resumed = command("train", "--resume", f"runs/{unfinished.name}")
    assert resumed.code == 0, resumed.err
    again = json.loads((unfinished / "record.json").read_text())
    assert again["resumed_at"] == [4]
    assert again["weights_sha256"] == record["weights_sha256"]

    Image.new("RGB", (40, 30), "red").save("red.png")
    for arguments in (
        ("verify", "whole/" + finished.name),
        ("evaluate", "latest", "--galleries"),
        ("report", "latest", "whole/" + finished.name),
        ("predict", "red.png"),
        ("export", "latest"),
        ("lr-find", "--config", finished / "config.toml", "--iterations", 10, "--out", "found"),
        ("schedule", "--config", finished / "config.toml"),
    ):
        done = command(*arguments)
        assert done.code == 0 or arguments[0] == "lr-find", (arguments, done)  # ten steps may not suffice to suggest


def test_in_another_process(folder: Path, small_data: Path, command: Command) -> None:
    """It reads the name of the module from the run; without the module it names it, and a changed module is noted."""
    arguments = training(small_data, "--import", "own_network", "--model", "own_net", "--optimizer", "sgd")
    assert command(*arguments).code == 0

    def evaluate() -> subprocess.CompletedProcess[str]:
        python = [sys.executable, "-m", "fastcifar", "evaluate"]
        env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        return subprocess.run(python, capture_output=True, text=True, check=False, env=env)

    done = evaluate()
    assert done.returncode == 0, done.stderr
    assert "note" not in done.stderr
    path = folder / "own_network.py"
    path.write_text(path.read_text() + "\n# changed\n")
    done = evaluate()
    assert done.returncode == 0, done.stderr
    assert "note: the module own_network" in done.stderr
    path.unlink()
    done = evaluate()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert "own_network" in done.stderr
    assert done.stderr.count("\n") == 1


def test_components_by_flag_and_by_file(folder: Path, command: Command) -> None:
    (folder / "my.toml").write_text(
        'import = ["own_network"]\nrecipe = "smoke"\nevaluation = "flip_tta"\n[model]\nkind = "own_net"\nwidth = 7\n'
    )
    done = command("train", "--config", "my.toml", "--summary")
    assert done.code == 0, done.err
    assert "7 x 32 x 32" in done.out
    done = command("train", "--config", "my.toml", "--import", "own_optimizer", "--optimizer", "own_opt", "--help")
    assert "--optimizer.alpha" in done.out
    assert "own_net" in done.out


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--import", "own_netwerk"], "own_netwerk"),
        (["--import"], "--import"),
        (["--import", "own_network", "--model", "own_nett"], "did you mean 'own_net'"),
        (["--model", "speedy"], "did you mean 'speed'"),
        (["--optimizer", "adamw"], "did you mean 'adam'"),
        (["--evaluation", "flip"], "flip_tta"),
        (["--schedule", "cosine"], "one_cycle"),
        (["--augment-op", "jiter"], "did you mean 'jitter'"),
        (["--augment-op", "jitter", "--augment-op.contrast", "3"], "augment_op.contrast is 3"),
    ],
)
def test_mistakes(arguments: list[str], shown: str, folder: Path, small_data: Path, command: Command) -> None:
    assert shown in command(*training(small_data, *arguments)).refused()
