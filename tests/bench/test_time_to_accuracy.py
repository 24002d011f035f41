import json

import pytest

from bench import time_to_accuracy
from bench.time_to_accuracy import Options, _finished, main, partial_path, subject_of, summarise
from fastcifar.errors import UserError
from fastcifar.runs.record import code_revision


def record(seed: int, plain: float, mirrored: float, evaluation: str = "flip_tta", run_s: float = 10.0) -> dict:
    return {
        "recipe": "cpu90", "seed": seed, "dataset": "cifar10", "dataset_sha256": "f" * 64, "epochs": 5, "steps": 500,
        "parameters": 1000, "flops": 2e13, "device": "cpu", "amp": "float32", "cpu_kernels": "winograd",
        "hardware": {"cpu": "x"}, "versions": {"torch": "2"},
        "evaluation": evaluation, "code_revision": code_revision(),
        "test_accuracy": plain, "test_accuracy_tta": mirrored,
        "clock": {"train_s": run_s - 1, "run_s": run_s, "process_s": run_s + 1},
    }  # fmt: skip


def test_summary_counts_the_view_that_the_recipe_declared():
    runs = [record(0, 0.89, 0.90, run_s=10), record(1, 0.90, 0.91, run_s=30), record(2, 0.91, 0.92, run_s=20)]
    result = summarise(runs, 0.905)
    assert result["mean"] == pytest.approx(0.91)
    assert result["fraction_at_target"] == pytest.approx(2 / 3)
    assert result["test_accuracy"]["mean"] == pytest.approx(0.90)
    assert result["clock"]["run_s"] == {"median": 20, "min": 10, "max": 30}
    assert result["n"] == 3
    assert result["flops"] == 2e13
    assert summarise([run | {"evaluation": "single_view"} for run in runs], 0.9)["mean"] == pytest.approx(0.90)


def test_runs_of_another_revision_are_not_taken_up(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"runs": [record(0, 0.9, 0.9), record(1, 0.9, 0.9) | {"code_revision": "older"}]}))
    assert [run["seed"] for run in _finished(path)] == [0]
    assert _finished(tmp_path / "missing.json") == []


def test_runs_on_other_images_are_not_taken_up(small_data, tmp_path, monkeypatch):
    manifest = json.loads((small_data / "manifest.json").read_text())
    manifest["splits"]["test"]["sha256"] = "0" * 64
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(time_to_accuracy.tempfile, "gettempdir", lambda: str(tmp_path))
    trained = []
    monkeypatch.setattr(time_to_accuracy, "_run", lambda o, seed: trained.append(o) or record(seed, 0.9, 0.91))
    for data in (small_data, tmp_path, small_data):
        main(["--recipe", "cpu90", "--runs", "1", "--data", str(data), "--out", str(tmp_path / "x.json")])
    assert [options.data for options in trained] == [small_data, tmp_path]
    with pytest.raises(UserError, match="no prepared data in"):
        partial_path("cpu90", tmp_path / "nowhere")


def test_other_images_are_part_of_the_name():
    assert subject_of(record(0, 0.9, 0.9)) == "cpu90"
    assert subject_of(record(0, 0.9, 0.9) | {"dataset": "custom"}) == "cpu90-custom-ffffff"


def test_folders_of_the_result_are_made(small_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(time_to_accuracy, "RESULTS", tmp_path / "not-there" / "results")
    monkeypatch.setattr(time_to_accuracy.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(time_to_accuracy, "_run", lambda options, seed: record(seed, 0.9, 0.91))
    main(["--recipe", "cpu90", "--runs", "2", "--data", str(small_data)])
    written = tmp_path / "not-there" / "results" / "time_to_accuracy-cpu90-cpu-n2.json"
    assert json.loads(written.read_text())["n"] == 2
    assert f"written to {written}" in capsys.readouterr().out
    out = tmp_path / "also" / "new" / "x.json"
    main(["--recipe", "cpu90", "--runs", "1", "--data", str(small_data), "--out", str(out)])
    assert json.loads(out.read_text())["n"] == 1


def test_a_number_of_runs_below_one_is_refused():
    with pytest.raises(UserError, match="runs is 0, but must be at least 1"):
        main(["--recipe", "smoke", "--runs", "0"])


def test_defaults_are_the_documented_ones():
    assert Options(recipe="cpu90").runs == 3
    assert Options(recipe="cpu90").target == 0.9
