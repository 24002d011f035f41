"""The five systems, shortened: configurations, resuming, the comparison; one real run on a small set."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import reproduce
from bench.plots import draw
from bench.published import FIGURES, PUBLISHED, comparison
from bench.report import SECTIONS
from bench.reproduce import Options, main, planned, shortened, stopped, summarise
from fastcifar.config import Config
from fastcifar.config.toml import to_toml
from fastcifar.data.manifest import load_manifest
from fastcifar.errors import RunFailedError, UserError
from fastcifar.recipes import RECIPES, load_config
from fastcifar.runs.record import code_revision
from fastcifar.training.steps import total_steps

STEPS = {"system_a": 97, "system_b": 390, "system_c": 97, "system_d": 97, "system_e": 781}


def rates(config: Config, steps_per_epoch: int) -> list[float]:
    total = total_steps(config.epochs, steps_per_epoch)
    return [config.optimizer.lr * config.schedule.lr_scale(step, total, config.epochs) for step in range(total)]


@pytest.mark.parametrize(
    ("name", "epochs"),
    [
        *((name, epochs) for name in PUBLISHED for epochs in (0.01, 1, 5, 6, 23)),
        *(("system_e", epochs) for epochs in (45, 46)),
    ],
)
def test_a_stopped_run_is_the_beginning_of_the_whole_one(name: str, epochs: float) -> None:
    recipe = RECIPES[name]()
    cut = rates(stopped(recipe, epochs, STEPS[name]), STEPS[name])
    assert len(cut) == total_steps(epochs, STEPS[name])
    assert cut == pytest.approx(rates(recipe, STEPS[name])[: len(cut)])


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_shortened_run_has_the_same_schedule_in_fewer_epochs(name: str) -> None:
    recipe = RECIPES[name]()
    cut = shortened(recipe, 0.25)
    assert cut.epochs == recipe.epochs / 4
    assert cut.optimizer == recipe.optimizer
    for step in (0, 100, 250, 999):
        assert cut.schedule.lr_scale(step, 1000, cut.epochs) == recipe.schedule.lr_scale(step, 1000, recipe.epochs)


def test_planned_configurations() -> None:
    whole = planned(Options(), "system_e", 3, 50_000)
    assert whole == replace(RECIPES["system_e"](), seed=3, runs=Path("runs/reproduce"))
    assert planned(Options(epochs=50), "system_e", 0, 50_000).schedule == RECIPES["system_e"]().schedule
    assert planned(Options(epochs=30), "system_a", 0, 50_000).epochs == 24  # no longer than published
    assert planned(Options(fraction=0.5, device="cpu"), "system_a", 0, 50_000).device == "cpu"


def run(config: Config, test: float = 0.9, **changes: Any) -> dict[str, Any]:
    record = {
        "dataset": "cifar10", "device": "cpu", "amp": "float32", "cpu_kernels": "winograd",
        "hardware": {"cpu": "A CPU", "threads": 2}, "versions": {"torch": "2"}, "code_revision": code_revision(),
    }  # fmt: skip
    return {
        "seed": config.seed, "failed": False, "epochs": config.epochs, "test_accuracy": test, "train_accuracy": 0.95,
        "epoch_1_test_accuracy": 0.5, "epoch_s": 300.0, "record": record, **changes,
    }  # fmt: skip


def failed(config: Config) -> dict[str, Any]:
    return {"seed": config.seed, "failed": True, "epochs": config.epochs}


def test_the_comparison() -> None:
    b, d = RECIPES["system_b"](), RECIPES["system_d"]()
    result = summarise({"system_b": [run(b, 0.91), run(b, 0.93)], "system_d": [failed(d)]}, Options(runs=2))
    header, rows = comparison(result)
    assert header == ["system", "trained for", *(f"{label}: published / ours" for label in FIGURES.values())]
    assert rows[0][:3] == ["system_b", "all 24 epochs", "90.70% / 92.00% ± 12.71"]
    assert rows[0][3:] == ["98.87% / 95.00%", "62.24% / 50.00%", "- / 300"]
    assert rows[1][1:3] == ["all 24 epochs; 1 of 1 runs failed", "90.98% / -"]
    assert rows[1][-1] == "22.5 / -"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (Options(fraction=0.5), "schedule of 24 epochs shortened to 12"),
        (Options(epochs=0.25), "first 0.25 of 24 epochs"),
        (Options(epochs=30), "all 24 epochs"),
    ],
)
def test_the_table_says_how_far_a_system_was_trained(options: Options, expected: str, tmp_path: Path) -> None:
    config = planned(options, "system_a", 0, 50_000)
    result = summarise({"system_a": [run(config, epoch_1_test_accuracy=None)]}, options)
    header, rows = SECTIONS["reproduce"].table_of(result)
    assert rows[0][1] == expected
    assert rows[0][4] == "- / -"
    assert len(rows[0]) == len(header)
    draw(result, tmp_path / "x.png")


def test_an_interrupted_benchmark_trains_only_what_is_missing(
    tmp_path: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[str] = []
    kept: dict[str, dict[str, Any]] = {}

    def train(config: Config) -> dict[str, Any]:
        if config.recipe == "system_c" and len(trained) < 3:
            raise RunFailedError("interrupted")
        trained.append(config.recipe)
        kept[f"{config.recipe} {config.seed}"] = run(config)
        return failed(config) if config.recipe == "system_a" else run(config)

    monkeypatch.setattr(reproduce, "_train", train)
    monkeypatch.setattr(reproduce, "_finished", lambda config: kept.get(f"{config.recipe} {config.seed}"))
    out = tmp_path / "new" / "x.json"
    arguments = ["--systems", "a,B,c", "--data", str(small_data), "--out", str(out)]
    with pytest.raises(RunFailedError, match="interrupted"):
        main(arguments)
    assert list(json.loads(out.read_text())["systems"]) == ["system_a", "system_b"]
    trained.append("by hand")
    main(arguments)
    assert trained == ["system_a", "system_b", "by hand", "system_c"]
    printed = capsys.readouterr().out.splitlines()
    assert any(str(out) in line for line in printed)
    assert "runs" not in json.loads(printed[-1])["systems"]["system_c"]
    assert json.loads(out.read_text())["systems"]["system_c"]["runs"]


def test_the_name_of_the_result_file() -> None:
    result = summarise({name: [run(RECIPES[name]())] for name in ("system_a", "system_c")}, Options())
    assert reproduce._target(result, Options(systems="a,c")).name == "reproduce-ac-cpu-n1.json"
    assert reproduce._target(result, Options(systems="c,a", epochs=0.2)).name == "reproduce-ca-e0.2-cpu-n1.json"
    assert reproduce._target(result, Options(systems="a,c", fraction=0.5)).name == "reproduce-ac-f0.5-cpu-n1.json"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--systems", "a,f"], "'f'"),
        (["--systems", ""], "''"),
        (["--epochs", "1", "--fraction", "0.1"], "--epochs and --fraction"),
        (["--epochs", "0"], "epochs is 0.0"),
        (["--fraction", "1.5"], "fraction is 1.5"),
        (["--runs", "0"], "runs is 0"),
        (["--data", "/nowhere"], "/nowhere"),
    ],
)
def test_mistakes(arguments: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        main([*arguments, "--out", str(tmp_path / "x.json")])
    assert message in str(caught.value)


@pytest.mark.slow
def test_a_real_run_is_found_again(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "runs", tmp_path / "x.json"
    arguments = ["--systems", "a", "--epochs", "1", "--data", str(small_data), "--folder", str(folder)]
    main([*arguments, "--device", "cpu", "--out", str(out)])
    first = json.loads(out.read_text())["systems"]["system_a"]["runs"][0]
    assert first["epoch_1_test_accuracy"] == first["test_accuracy"]
    monkeypatch.setattr(reproduce, "_train", None)
    main([*arguments, "--device", "cpu", "--out", str(out)])
    assert json.loads(out.read_text())["systems"]["system_a"]["runs"][0] == first
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, Options(epochs=1)) for name in PUBLISHED),
        ("system_a", Options()),
        ("system_b", Options(epochs=7.5)),
        ("system_d", Options(fraction=0.1)),
    ],
)
def test_a_finished_run_is_found_by_its_values(
    name: str, options: Options, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The configuration file of a run may say 1.0 where the recipe says 1."""
    config = replace(planned(options, name, 0, 50_000), data=small_data, runs=tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "asked.toml").write_text(to_toml(config))
    (tmp_path / "run" / "config.toml").write_text(to_toml(load_config(tmp_path / "run" / "asked.toml")))
    (tmp_path / "run" / "record.json").write_text("{}")
    record = {"code_revision": "an earlier one", "dataset_sha256": load_manifest(small_data).content_sha256}
    monkeypatch.setattr(reproduce, "load_record", lambda folder: record)
    monkeypatch.setattr(reproduce, "figures", lambda folder, record: {"folder": folder})
    assert reproduce._finished(config) == {"folder": tmp_path / "run"}
    assert reproduce._finished(replace(config, seed=1)) is None
    record["dataset_sha256"] = "0" * 64  # it was trained on other data
    assert reproduce._finished(config) is None
