"""`fastcifar schedule`: plans and cycles as images and numbers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastcifar.recipes import RECIPES

Command = Callable[..., Any]


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_can_be_drawn_without_data(recipe: str, tmp_path: Path, command: Command) -> None:
    done = command("schedule", "--recipe", recipe, "--data", tmp_path / "none", "--out", tmp_path)
    assert done.code == 0, done
    assert done.err == f"no prepared data in {tmp_path / 'none'}: planned for CIFAR-10's 50000 images\n"
    assert done.out.splitlines()[-1] == f"image   {tmp_path / 'schedule.png'}"
    assert [path.name for path in tmp_path.iterdir()] == ["schedule.png"]
    assert (tmp_path / "schedule.png").read_bytes().startswith(b"\x89PNG")


def test_the_plan_of_a_recipe(small_data: Path, tmp_path: Path, command: Command) -> None:
    flags = ["--batch-size", 50, "--epochs", 4, "--schedule.peak-epoch", 2, "--optimizer.lr", 0.1]
    done = command("schedule", "--recipe", "system_a", "--data", small_data, "--out", tmp_path, "--json", *flags)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[:3] == [
        "start     0.01 at iteration 0, epoch 0.00",
        "peak      0.1 at iteration 23, epoch 1.92",
        "end       0.01 at iteration 47, epoch 3.92",
    ]
    plan = json.loads((tmp_path / "schedule.json").read_text())
    assert (plan["recipe"], plan["iterations"], plan["steps_per_epoch"]) == ("system_a", 48, 12)
    assert plan["peak"] == {"iteration": 23, "epoch": pytest.approx(23 / 12), "lr": 0.1}
    assert len(plan["rates"]["lr"]) == 48
    assert plan["momenta"] == {"momentum": [0.9] * 48}


@pytest.mark.parametrize("kind", ["triangular", "triangular2", "exp_range"])
def test_cycles(kind: str, tmp_path: Path, command: Command) -> None:
    flags = ["--base", 0.1, "--amplitude", 0.4, "--step-size", 10, "--cycles", 2, "--gamma", 0.9, "--out", tmp_path]
    done = command("schedule", "--kind", kind, "--json", *flags)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{kind}: 40 iterations between 0.1 and 0.5\nimage   {tmp_path / 'schedule.png'}\n"
    cycles = json.loads((tmp_path / "schedule.json").read_text())
    assert (cycles["kind"], cycles["peak"], cycles["amplitude"]) == (kind, 0.5, pytest.approx(0.4))
    assert len(cycles["rates"]) == 41
    assert cycles["rates"][10] == pytest.approx(0.1 + 0.4 * (0.9**10 if kind == "exp_range" else 1))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--kind", "square"], "invalid choice 'square' for argument '--kind'"),
        (["--kind", "triangular", "--peak", "0.0001"], "peak is 0.0001, but must be above base, 0.001, and at most"),
        (["--kind", "triangular", "--amplitude", "0"], "peak is 0.001, but must be above base, 0.001, and at most"),
        (["--kind", "triangular", "--peak", "1", "--amplitude", "1"], "--peak and --amplitude say the same"),
        (["--kind", "triangular", "--step-size", "0"], "step_size is 0, but must be at least 1"),
        (["--batch-size", "60000"], "batch_size is 60000, but the training set has 50000 images"),
    ],
)
def test_mistakes(arguments: list[str], text: str, tmp_path: Path, command: Command) -> None:
    done = command("schedule", "--recipe", "smoke", "--data", tmp_path / "none", "--out", tmp_path / "out", *arguments)
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith(f"error: {text}")
    assert not (tmp_path / "out").exists()
