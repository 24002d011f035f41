"""Means over seeds, and which runs are reused by an interrupted benchmark."""

import json

import pytest

from bench import measure, time_to_accuracy
from bench.time_to_accuracy import load_partial, main, partial_path, subject_of, summarise
from fastcifar.errors import UserError


def record(seed: int, single: float, tta: float, evaluation: str = "flip_tta", run_s: float = 10.0) -> dict:
    return {
        "recipe": "cpu90", "seed": seed, "dataset": "cifar10", "dataset_sha256": "f" * 64, "epochs": 5, "steps": 500,
        "parameters": 1000, "flops": 2e13, "device": "cpu", "amp": "float32", "cpu_kernels": "winograd",
        "hardware": {"cpu": "x"}, "versions": {"torch": "2"}, "code_revision": "abc", "evaluation": evaluation,
        "test_accuracy": single, "test_accuracy_tta": tta,
        "clock": {"train_s": run_s - 1, "run_s": run_s, "process_s": run_s + 1},
    }  # fmt: skip


def test_the_summary_is_of_the_primary_metric():
    runs = [record(0, 0.89, 0.90, run_s=10), record(1, 0.90, 0.91, run_s=30), record(2, 0.91, 0.92, run_s=20)]
    result = summarise(runs, 0.905)
    assert (result["n"], result["primary_metric"], result["flops"]) == (3, "test_accuracy_tta", 2e13)
    assert result["mean"] == pytest.approx(0.91)
    assert result["fraction_at_target"] == pytest.approx(2 / 3)
    assert result["test_accuracy"]["mean"] == pytest.approx(0.90)
    assert result["clock"]["run_s"] == {"median": 20, "min": 10, "max": 30}
    assert summarise([run | {"evaluation": "single_view"} for run in runs], 0.9)["mean"] == pytest.approx(0.90)
    assert subject_of(result) == "cpu90"
    assert subject_of(result | {"dataset": "custom"}) == "cpu90-custom-ffffff"


def test_runs_on_other_data_or_by_other_code_are_not_reused(small_data, tmp_path, monkeypatch, capsys):
    manifest = json.loads((small_data / "manifest.json").read_text())
    manifest["splits"]["test"]["sha256"] = "0" * 64
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(time_to_accuracy.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "new" / "results")
    revision, trained = ["one"], []
    monkeypatch.setattr(time_to_accuracy, "code_revision", lambda: revision[0])
    monkeypatch.setattr(
        time_to_accuracy, "train_once", lambda arguments, seed, data: trained.append(data) or record(seed, 0.9, 0.91)
    )
    for data, code in ((small_data, "one"), (tmp_path, "one"), (small_data, "one"), (small_data, "two")):
        revision[0] = code
        main(["--recipe", "cpu90", "--runs", "1", "--data", str(data)])
    assert trained == [small_data, tmp_path, small_data]
    written = tmp_path / "new" / "results" / "time_to_accuracy-cpu90-cpu-n1.json"
    assert json.loads(written.read_text())["n"] == 1
    assert str(written) in capsys.readouterr().out
    assert load_partial(tmp_path / "missing.json") == []
    with pytest.raises(UserError, match=str(tmp_path / "nowhere")):
        partial_path("cpu90", tmp_path / "nowhere")
    with pytest.raises(UserError, match="runs is 0"):
        main(["--recipe", "smoke", "--runs", "0"])
