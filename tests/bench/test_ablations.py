"""Which settings a lever changes, and what the table makes of the records."""

from dataclasses import fields
from typing import Any

import pytest

from bench import ablations, time_to_accuracy
from bench.ablations import BASE, KEPT, LEVERS, main, summarise, table_of
from bench.report import SECTIONS, TITLES
from fastcifar.config.toml import to_toml
from fastcifar.errors import UserError
from fastcifar.recipes.speed import cpu90


def record(lever: str, seed: int, plain: float, more: float, run_s: float) -> dict[str, Any]:
    return {
        "lever": lever, "seed": seed, "recipe": "cpu90", "dataset": "cifar10", "dataset_sha256": "f" * 64,
        "epochs": 4.5, "device": "cpu",
        "amp": "float32", "cpu_kernels": "winograd-fp16", "evaluation": "selective_tta", "hardware": {"cpu": "x"}, "versions": {},
        "code_revision": "abc", "test_accuracy": plain, "test_accuracy_tta": more, "train_accuracy": 0.9,
        "clock": {"train_s": run_s - 1, "run_s": run_s, "process_s": run_s + 1}, "weights_sha256": "0",
    }  # fmt: skip


def test_every_lever_changes_one_part_of_the_recipe():
    recipe = cpu90()
    for name, change in LEVERS.items():
        changed = change(recipe)
        to_toml(changed)
        differing = [f.name for f in fields(recipe) if getattr(recipe, f.name) != getattr(changed, f.name)]
        assert len(differing) == (0 if name == BASE else 1), name


def test_differences_are_taken_seed_by_seed():
    found = [record(BASE, 0, 0.80, 0.90, 10), record(BASE, 1, 0.82, 0.92, 30)]
    found += [record("crops: none", 0, 0.70, 0.85, 5), record("crops: none", 1, 0.72, 0.89, 10)]
    result = summarise(found)
    one = result["levers"]["crops: none"]
    assert (result["n"], one["n"], result["counts"]) == (2, 2, "test_accuracy_tta")
    assert one["difference"]["mean"] == pytest.approx(-0.04)
    assert one["times_base"]["median"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert result["levers"][BASE]["times_base"]["max"] == 1
    assert [set(run) for run in result["runs"]] == [set(KEPT)] * 4
    header, rows = table_of(result)
    assert header[0] == "lever: what it becomes"
    assert rows[0] == [BASE, "81.00 ± 12.71", "91.00 ± 12.71", "", "20.0", "1.00"]
    assert rows[1] == ["crops: none", "71.00 ± 12.71", "87.00 ± 25.41", "-4.00 ± 12.71", "7.50", "0.417"]


def test_one_seed_has_no_interval():
    _, rows = table_of(summarise([record(BASE, 0, 0.8, 0.9, 10), record("GELU: ReLU", 0, 0.7, 0.8, 8)]))
    assert rows[1] == ["GELU: ReLU", "70.00", "80.00", "-10.00", "8.00", "0.800"]


def test_the_report_has_a_section_for_it():
    result = summarise([record(BASE, 0, 0.8, 0.9, 10)])
    assert list(SECTIONS) == list(TITLES)
    _, rows, note = SECTIONS["ablations"](result)
    assert rows[0][0] == BASE
    assert note.startswith("Recipe cpu90, 4.5 epochs, whole test set")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--runs", "0"], "runs is 0, but must be at least 1"),
        (["--recipe", "resnet24"], "recipe is 'resnet24', but must be one of the speed network and Muon"),
        (["--recipe", "nix"], "recipe is 'nix', but must be one of"),
        (["--only", "cropz"], "no lever begins with 'cropz': choose one of 'the recipe', 'small images first"),
    ],
)
def test_mistakes(arguments: list[str], text: str):
    with pytest.raises(UserError, match=text):
        main(arguments)


def test_what_is_there_is_not_trained_again(small_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(time_to_accuracy.tempfile, "gettempdir", lambda: str(tmp_path))
    calls = []

    def trained(arguments: list[str], seed: int, data: Any) -> dict[str, Any]:
        calls.append(seed)
        return record("", seed, 0.8, 0.9, 10)

    monkeypatch.setattr(ablations, "train_once", trained)
    chosen = ["--only", "crops", "GELU", "--data", str(small_data), "--out", str(tmp_path / "new" / "x.json")]
    main([*chosen, "--runs", "1"])
    assert calls == [0, 0, 0]
    main([*chosen, "--runs", "2"])
    assert calls == [0, 0, 0, 1, 1, 1]
    assert "crops: none, seed 1: one view 80.00%, more views 90.00%; run 10.0 s" in capsys.readouterr().out
