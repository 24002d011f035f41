"""Which settings a variant changes, and the comparison with the baseline."""

from dataclasses import fields
from typing import Any

import pytest

from bench import time_to_accuracy, training
from bench.ablations import BASELINE, KEPT, VARIANTS, main, summarise, table_of
from fastcifar.config.toml import to_toml
from fastcifar.errors import UserError
from fastcifar.recipes.speed import cpu90


def record(variant: str, seed: int, single: float, tta: float, run_s: float) -> dict[str, Any]:
    return {
        "variant": variant, "seed": seed, "recipe": "cpu90", "dataset": "cifar10", "dataset_sha256": "f" * 64,
        "epochs": 4.5, "device": "cpu", "amp": "float32", "cpu_kernels": "winograd-fp16", "evaluation": "selective_tta",
        "hardware": {"cpu": "x"}, "versions": {}, "code_revision": "abc", "test_accuracy": single,
        "test_accuracy_tta": tta, "train_accuracy": 0.9, "weights_sha256": "0",
        "clock": {"train_s": run_s - 1, "run_s": run_s, "process_s": run_s + 1},
    }  # fmt: skip


def test_every_variant_changes_one_part_of_the_recipe():
    recipe = cpu90()
    for name, change in VARIANTS.items():
        changed = change(recipe)
        to_toml(changed)
        differing = [f.name for f in fields(recipe) if getattr(recipe, f.name) != getattr(changed, f.name)]
        assert len(differing) == (0 if name == BASELINE else 1), name


def test_differences_are_computed_seed_by_seed():
    found = [record(BASELINE, 0, 0.80, 0.90, 10), record(BASELINE, 1, 0.82, 0.92, 30)]
    found += [record("crops: none", 0, 0.70, 0.85, 5), record("crops: none", 1, 0.72, 0.89, 10)]
    result = summarise(found)
    one = result["variants"]["crops: none"]
    assert (result["n"], one["n"], result["primary_metric"]) == (2, 2, "test_accuracy_tta")
    assert one["difference"]["mean"] == pytest.approx(-0.04)
    assert one["time_over_baseline"]["median"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert result["variants"][BASELINE]["time_over_baseline"]["max"] == 1
    assert [set(run) for run in result["runs"]] == [set(KEPT)] * 4
    _, rows = table_of(result)
    assert rows[0] == [BASELINE, "81.00 ± 12.71", "91.00 ± 12.71", "", "20.0", "1.00"]
    assert rows[1] == ["crops: none", "71.00 ± 12.71", "87.00 ± 25.41", "-4.00 ± 12.71", "7.50", "0.417"]
    _, rows = table_of(summarise([record(BASELINE, 0, 0.8, 0.9, 10), record("GELU: ReLU", 0, 0.7, 0.8, 8)]))
    assert rows[1] == ["GELU: ReLU", "70.00", "80.00", "-10.00", "8.00", "0.800"]  # one seed has no interval


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--runs", "0"], "runs is 0"),
        (["--recipe", "resnet24"], "recipe is 'resnet24'"),
        (["--recipe", "nix"], "recipe is 'nix'"),
        (["--only", "cropz"], "'cropz'"),
    ],
)
def test_mistakes(arguments: list[str], shown: str):
    with pytest.raises(UserError, match=shown):
        main(arguments)


def test_finished_runs_are_not_repeated(small_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(time_to_accuracy.tempfile, "gettempdir", lambda: str(tmp_path))
    calls = []

    def trained(arguments: list[str], seed: int, data: Any) -> dict[str, Any]:
        calls.append(seed)
        return record("", seed, 0.8, 0.9, 10)

    monkeypatch.setattr(training, "train_once", trained)
    chosen = ["--only", "crops", "GELU", "--data", str(small_data), "--out", str(tmp_path / "new" / "x.json")]
    main([*chosen, "--runs", "1"])
    assert calls == [0, 0, 0]
    main([*chosen, "--runs", "2"])
    assert calls == [0, 0, 0, 1, 1, 1]
    assert "crops: none, seed 1: " in capsys.readouterr().out
