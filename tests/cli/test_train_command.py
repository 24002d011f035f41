"""`fastcifar train`: its flags, its output, its mistakes."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastcifar.cli.train import summary
from fastcifar.models.layer_table import layer_table
from fastcifar.models.resnet import ResNetConfig
from fastcifar.recipes import load_config

Command = Callable[..., Any]

COMMON = """
--help --recipe --seed --epochs --batch-size --label-smoothing --resolution --evaluate-every
--evaluation-batch-size --loader --amp --cpu-kernels --device --threads
--weights --graph --no-graph --compile --no-compile --strict --no-strict --deterministic --no-deterministic
--checkpoint-every --checkpoint-keep --data --runs
--schedule.peak-epoch --schedule.start --schedule.end --schedule.anneal
--augment.pad --augment.pad-mode --augment.flip --augment.cutout --augment.small
"""
RESNET_SGD = """
--model.width --model.dropout --model.conv-bias --model.no-conv-bias --model.linear-bias --model.no-linear-bias
--model.layer2-padding --model.layer3-pool --model.no-layer3-pool --model.logit-scale
--optimizer.lr --optimizer.momentum --optimizer.nesterov --optimizer.no-nesterov --optimizer.weight-decay
"""
SPEED_MUON = """
--model.widths --model.activation --model.bn-momentum --model.logit-scale --model.stem-epochs
--model.stem --model.identity --model.no-identity
--optimizer.lr --optimizer.momentum --optimizer.steps --optimizer.bias-lr --optimizer.head-lr
--optimizer.sgd-momentum --optimizer.weight-decay
"""


def quick(data: Path, runs: Path, *more: object) -> list[object]:
    """The smoke recipe on the small set, in a second."""
    start = ["train", "--recipe", "smoke", "--data", data, "--runs", runs, "--batch-size", 50, "--threads", 1]
    return [*start, "--model.widths", 8, 8, "--amp", "float32", "--cpu-kernels", "torch", *more]


@pytest.mark.parametrize(("recipe", "own"), [("resnet24", RESNET_SGD), ("smoke", SPEED_MUON)])
def test_the_flags(recipe: str, own: str, command: Command) -> None:
    """A new flag is a decision: it changes this list."""
    shown = command("train", "--recipe", recipe, "--help").out
    described = shown[shown.index("-h, --help  ") :]
    flags = re.findall(r"(?<![\w-])--[a-z][\w.-]*", described)
    components = {
        "--model",
        "--optimizer",
        "--schedule",
        "--evaluation",
        "--augment-op",
    }  # the sections' texts name them
    assert sorted(set(flags) - components) == sorted([*COMMON.split(), *own.split()])
    assert components <= set(re.findall(r"^(--[\w-]+) NAME", shown, re.MULTILINE))
    about = shown[: shown.index("-h, --help")]
    assert f"Recipe: {recipe} (" in about
    assert all(flag in about for flag in ("--config FILE", "--lr found", "--resume auto", "--summary", "cpu90"))


def test_a_run(small_data: Path, tmp_path: Path, command: Command) -> None:
    done = command(*quick(small_data, tmp_path, "--epochs", 1.5, "--seed", 4, "--lr", 0.125))
    assert done.code == 0
    (folder,) = tmp_path.iterdir()
    assert re.fullmatch(r"\d{8}-\d{6}-smoke-4", folder.name)
    names = {"config.toml", "metrics.jsonl", "weights.safetensors", "record.json", "curves.png", "checkpoints"}
    assert {path.name for path in folder.iterdir()} == names
    *figures, where = done.out.splitlines()
    assert where.split() == ["run", str(folder)]
    assert len(figures) == 4
    assert all(line.endswith("  [synthetic data, not CIFAR-10]") for line in figures)
    assert "smoke seed 4  18/18 steps (100%)" in done.err
    assert "test " in done.err  # evaluated after the first of its epochs
    config = load_config(folder / "config.toml")
    assert (config.epochs, config.optimizer.lr) == (1.5, 0.125)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--foo", "3"], "--foo, 3"),
        (["--model.width", "3"], "--model.width, 3"),
        (["stray"], "stray"),
        (["--epochs", "three"], "'three'"),
        (["--epochs", "-1"], "epochs is -1.0"),
        (["--epochs"], "'--epochs'"),
        (["--amp", "int8"], "'int8' for argument '--amp'"),
        (["--augment.pad", "17"], "augment.pad is 17"),
        (["--epoch", "3"], "did you mean --epochs?"),
        (["--pad=3"], "did you mean --augment.pad?"),
        (["--resum", "auto"], "did you mean --resume?"),
        (["--recipe", "nix"], "'nix'"),
        (["--recipe", "CPU90"], "did you mean 'cpu90'?"),
        (["--recipe"], "--recipe"),
        (["--config"], "--config"),
        (["--config", "/nowhere.toml"], "/nowhere.toml"),
        (["--resume", "/nowhere"], "/nowhere"),
        (["--data", "/nowhere"], "/nowhere/manifest.json"),
        (["--summary", "--foo"], "--foo"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(arguments: list[str], shown: str, command: Command) -> None:
    assert shown in command("train", "--recipe", "smoke", *arguments).refused()


def test_folders_that_cannot_be_used(small_data: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "file").touch()
    assert f"{tmp_path}/file/runs" in command(*quick(small_data, tmp_path / "file" / "runs")).refused()
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in small_data.iterdir():
        if path.is_file() and not path.name.startswith("."):
            (damaged / path.name).write_bytes(path.read_bytes()[: -1 if path.name == "test.beton" else None])
    assert "test.beton" in command(*quick(damaged, tmp_path / "runs")).refused()


def test_a_failed_run_exits_with_1(small_data: Path, tmp_path: Path, command: Command) -> None:
    sgd = ["--recipe", "resnet24", "--model.width", 2, "--optimizer.lr", 1e9, "--batch-size", 50, "--amp", "float32"]
    done = command("train", *sgd, "--cpu-kernels", "torch", "--data", small_data, "--runs", tmp_path)
    assert (done.code, done.out) == (1, "")
    last = done.err.splitlines()[-1]  # lines of progress may come before
    assert re.match(r"failed: the loss is (nan|inf) at step \d+", last)
    (folder,) = tmp_path.iterdir()
    assert not (folder / "record.json").exists()


def test_the_summary_marks_the_primary_metric_and_not_real_data(finished: Any) -> None:
    clock = {"train_s": 1.0, "run_s": 2.0, "process_s": None}
    record = finished.record | {"dataset": "cifar10", "clock": clock}
    for evaluation, marked in (("flip_tta", [False, True]), ("single_view", [True, False])):
        lines = summary(Path("runs/x"), record | {"evaluation": evaluation}).splitlines()
        assert ["(primary metric)" in line for line in lines[:2]] == marked
        assert "train 1.0 s   run 2.0 s" in lines[3]
        assert "synthetic" not in "".join(lines)


def test_the_layer_table_needs_no_data(command: Command) -> None:
    done = command("train", "--recipe", "system_b", "--data", "/nowhere", "--summary", "--model.width", "32")
    assert (done.code, done.err) == (0, "")
    network = ResNetConfig(width=32, linear_bias=False, layer2_padding=0, layer3_pool=False)
    assert done.out == layer_table(network) + "\n"
