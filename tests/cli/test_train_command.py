"""`python -m fastcifar.train`: its flags, its output, its mistakes."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastcifar.cli.train import summary
from fastcifar.config import Config, ResNetConfig
from fastcifar.models.layer_table import layer_table
from fastcifar.recipes import load_config

Command = Callable[..., Any]

COMMON = """
--help --recipe --seed --epochs --batch-size --label-smoothing --resolution --evaluation --evaluate-every
--evaluation-batch-size --loader --amp --cpu-kernels --device --threads
--graph --no-graph --deterministic --no-deterministic
--checkpoint-every --checkpoint-keep --data --runs
--schedule.peak-epoch --schedule.start --schedule.end --schedule.anneal
--augment.pad --augment.pad-mode --augment.flip --augment.cutout --augment.small
"""
RESNET_SGD = """
--model.width --model.dropout --model.conv-bias --model.no-conv-bias --model.linear-bias --model.no-linear-bias
--model.layer2-padding --model.layer3-pool --model.no-layer3-pool --model.logit-scale
--optimizer.lr --optimizer.momentum --optimizer.nesterov --optimizer.no-nesterov --optimizer.weight-decay
--optimizer.decoupled --optimizer.no-decoupled
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
    return [*start, "--model.widths", 8, 8, "--amp", "float32", *more]


@pytest.mark.parametrize(("recipe", "own"), [("resnet24", RESNET_SGD), ("smoke", SPEED_MUON)])
def test_the_flags(recipe: str, own: str, command: Command) -> None:
    """A new flag is a decision: it changes this list."""
    shown = command("train", "--recipe", recipe, "--help").out
    described = shown[shown.index("--help") :]
    assert sorted(re.findall(r"(?<![\w-])--[a-z][\w.-]*", described)) == sorted([*COMMON.split(), *own.split()])


def test_help_reads_well(command: Command) -> None:
    shown = " ".join(command("train", "--help", "--recipe", "resnet24").out.replace("│", " ").split())
    assert "--config FILE reads fields from TOML first" in shown
    assert "Recipe: resnet24 (The brief: its ResNet, batch 512, 24 epochs" in shown
    assert "Others: cpu90, cpu94, fast90, fast94, smoke" in shown
    assert "--batch-size INT Images a step; a last, smaller batch of an epoch is left out. (default: 512)" in shown


def test_a_run_of_the_command(small_data: Path, tmp_path: Path, command: Command) -> None:
    done = command(*quick(small_data, tmp_path, "--epochs", 1.5, "--seed", 4))
    assert done.code == 0
    (folder,) = tmp_path.iterdir()
    assert re.fullmatch(r"\d{8}-\d{6}-smoke-4", folder.name)
    names = {"config.toml", "metrics.jsonl", "weights.safetensors", "record.json", "curves.png", "checkpoints"}
    assert {path.name for path in folder.iterdir()} == names
    lines = done.out.splitlines()
    figures, where = lines[:-1], lines[-1]
    assert where == f"run                 {folder}"
    assert len(figures) == 4
    assert all(line.endswith("  [synthetic data, not CIFAR-10]") for line in figures)
    (progress,) = done.err.splitlines()
    assert "smoke seed 4  18/18 steps (100%)" in progress
    assert "data synthetic" in progress
    assert "test " in progress  # evaluated after the first of its epochs
    assert load_config(folder / "config.toml").epochs == 1.5


def test_a_run_is_repeated_by_its_config(finished: Any, tmp_path: Path, command: Command) -> None:
    done = command("train", "--config", finished.folder / "config.toml", "--runs", tmp_path)
    assert done.code == 0
    (folder,) = tmp_path.iterdir()
    again = load_config(folder / "config.toml")
    assert load_config(finished.folder / "config.toml") == finished.config
    assert (again.seed, again.model, again.optimizer) == (0, finished.config.model, finished.config.optimizer)
    digest = re.compile(r'"weights_sha256": "\w{64}"')
    found = [digest.findall((path / "record.json").read_text()) for path in (folder, finished.folder)]
    assert len(found[0]) == 1
    assert found[0] == found[1]


def test_the_default_configuration_can_be_read_back(tmp_path: Path) -> None:
    from fastcifar.config.toml import to_toml

    (tmp_path / "config.toml").write_text(to_toml(Config()))
    assert load_config(tmp_path / "config.toml") == Config()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--foo", "3"], "Unrecognized options: --foo, 3; see `python -m fastcifar.train --help`"),
        (["--model.width", "3"], "Unrecognized options: --model.width, 3; see "),
        (["stray"], "Unrecognized options: stray; see "),
        (["--epochs", "three"], "Error parsing --epochs: could not convert string to float: 'three'; see "),
        (["--epochs", "-1"], "Error parsing Config: epochs is -1.0, but must be above 0 and at most a million; see "),
        (["--epochs"], "Missing value for argument '--epochs'. Expected 1 values; see "),
        (["--amp", "int8"], "invalid choice 'int8' for argument '--amp'. Expected one of ('auto', 'float32'"),
        (["--augment.pad", "17"], "Error parsing augment: augment.pad is 17, but must be between 0 and 16 pixels; see"),
        (["--recipe", "nix"], "no recipe is called 'nix': choose one of resnet24, cpu90, cpu94, fast90, fast94, smoke"),
        (["--recipe"], "--recipe needs a value"),
        (["--config"], "--config needs a value"),
        (["--config", "/nowhere.toml"], "cannot read the configuration /nowhere.toml: No such file or directory; name"),
        (["--data", "/nowhere"], "no prepared data in /nowhere: /nowhere/manifest.json is missing; run `python -m"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(arguments: list[str], text: str, command: Command) -> None:
    assert command("train", "--recipe", "smoke", *arguments).refused().startswith(text)


def test_a_run_folder_that_cannot_be_made(small_data: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "file").touch()
    done = command(*quick(small_data, tmp_path / "file" / "runs"))
    assert done.refused() == (
        f"cannot make a run folder in {tmp_path}/file/runs: Not a directory; choose another --runs"
    )


def test_damaged_data_is_refused(small_data: Path, tmp_path: Path, command: Command) -> None:
    for path in small_data.iterdir():
        if path.is_file() and not path.name.startswith("."):
            (tmp_path / path.name).write_bytes(path.read_bytes()[: -1 if path.name == "test.beton" else None])
    assert "test.beton" in command(*quick(tmp_path, tmp_path / "runs")).refused()


def test_a_failed_run_exits_with_1(small_data: Path, tmp_path: Path, command: Command) -> None:
    sgd = ["--recipe", "resnet24", "--model.width", 2, "--optimizer.lr", 1e9, "--batch-size", 50, "--amp", "float32"]
    done = command("train", *sgd, "--data", small_data, "--runs", tmp_path)
    assert (done.code, done.out) == (1, "")
    last = done.err.splitlines()[-1]  # lines of progress before it where the machine is slow
    assert re.fullmatch(r"failed: the loss is (nan|inf) at step \d+ of 288, learning rate .*float32", last)
    (folder,) = tmp_path.iterdir()
    assert not (folder / "record.json").exists()


def test_debug_shows_where(command: Command) -> None:
    done = command("train", "--recipe", "nix", "--debug")
    assert done.code == 2
    assert done.err.startswith("Traceback")
    assert done.err.splitlines()[-1].startswith("error: no recipe is called 'nix'")


def test_a_summary_of_real_data_is_not_marked(finished: Any) -> None:
    record = finished.record | {"dataset": "cifar10", "clock": {"train_s": 1.0, "run_s": 2.0, "process_s": None}}
    text = summary(Path("runs/x"), record)
    assert "synthetic" not in text
    assert "clock               train 1.0 s   run 2.0 s\n" in text
    assert "mirrored views" in text
    assert text.count("(this one counts)") == 1
    assert "(this one counts)" in text.splitlines()[1]


def test_the_layer_table_needs_no_data(command: Command) -> None:
    done = command("train", "--recipe", "system_b", "--data", "/nowhere", "--summary", "--model.width", "32")
    assert (done.code, done.err) == (0, "")
    network = ResNetConfig(width=32, linear_bias=False, layer2_padding=0, layer3_pool=False)
    assert done.out == layer_table(network) + "\n"
    assert command("train", "--summary", "--foo").refused().startswith("Unrecognized options: --foo; see ")
