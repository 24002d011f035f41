"""`fastcifar schedule`: schedules and cycles as plots and numbers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


@pytest.mark.parametrize("recipe", ["cpu90", "system_d"])
def test_a_recipe_is_plotted_without_data(recipe: str, tmp_path: Path, command: Command) -> None:
    done = command("schedule", "--recipe", recipe, "--data", tmp_path / "none", "--out", tmp_path)
    assert done.code == 0, done
    assert str(tmp_path / "none") in done.err
    assert "50000" in done.err
    assert [path.name for path in tmp_path.iterdir()] == [f"{recipe}.png"]
    assert (tmp_path / f"{recipe}.png").read_bytes().startswith(b"\x89PNG")


def test_the_schedule_of_a_recipe(small_data: Path, tmp_path: Path, command: Command) -> None:
    flags = ["--batch-size", 50, "--epochs", 4, "--schedule.peak-epoch", 2, "--optimizer.lr", 0.1]
    done = command("schedule", "--recipe", "system_a", "--data", small_data, "--out", tmp_path, "--json", *flags)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[:3] == [
        "start     0.01 at iteration 0, epoch 0.00",
        "peak      0.1 at iteration 23, epoch 1.92",
        "end       0.01 at iteration 47, epoch 3.92",
    ]
    plan = json.loads((tmp_path / "system_a.json").read_text())
    assert (plan["recipe"], plan["iterations"], plan["steps_per_epoch"]) == ("system_a", 48, 12)
    assert plan["peak"] == {"iteration": 23, "epoch": pytest.approx(23 / 12), "lr": 0.1}
    assert len(plan["rates"]["all"]) == 48
    assert plan["momenta"] == {"all": [0.9] * 48}


@pytest.mark.parametrize("kind", ["triangular", "exp_range"])
def test_cycles(kind: str, tmp_path: Path, command: Command) -> None:
    flags = ["--base", 0.1, "--amplitude", 0.4, "--step-size", 10, "--cycles", 2, "--gamma", 0.9, "--out", tmp_path]
    done = command("schedule", "--kind", kind, "--json", *flags)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0] == f"{kind}: 40 iterations between 0.1 and 0.5"
    assert [line.split()[-1] for line in done.out.splitlines()[1:]] == [
        str(tmp_path / f"{kind}.png"),
        str(tmp_path / f"{kind}.json"),
    ]
    cycles = json.loads((tmp_path / f"{kind}.json").read_text())
    assert (cycles["kind"], cycles["peak"], cycles["amplitude"]) == (kind, 0.5, pytest.approx(0.4))
    assert len(cycles["rates"]) == 41
    assert cycles["rates"][10] == pytest.approx(0.1 + 0.4 * (0.9**10 if kind == "exp_range" else 1))


def test_only_the_same_recipe_replaces_a_file_and_the_output_says_so(tmp_path: Path, command: Command) -> None:
    for recipe, replaces in (("cpu90", False), ("cpu94", False), ("cpu90", True)):
        done = command("schedule", "--recipe", recipe, "--data", tmp_path, "--out", tmp_path, "--json")
        for line, name in zip(done.out.splitlines()[-2:], (f"{recipe}.png", f"{recipe}.json"), strict=True):
            assert line.endswith(f"{tmp_path / name}{' (replaced)' if replaces else ''}")
    assert {path.name for path in tmp_path.iterdir()} == {"cpu90.png", "cpu90.json", "cpu94.png", "cpu94.json"}


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--confg", "x.toml"], "did you mean --config?"),
        (["--kind", "square"], "'square' for argument '--kind'"),
        (["--kind", "triangular", "--peak", "0.0001"], "peak is 0.0001"),
        (["--kind", "triangular", "--amplitude", "0"], "peak is 0.001"),
        (["--kind", "triangular", "--peak", "1", "--amplitude", "1"], "--peak and --amplitude"),
        (["--kind", "triangular", "--step-size", "0"], "step_size is 0"),
        (["--batch-size", "60000"], "batch_size is 60000"),
    ],
)
def test_mistakes(arguments: list[str], shown: str, tmp_path: Path, command: Command) -> None:
    done = command("schedule", "--recipe", "smoke", "--data", tmp_path / "none", "--out", tmp_path / "out", *arguments)
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith("error: ")
    assert shown in done.err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
