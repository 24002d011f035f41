"""Means over seeds, and which runs are reused by an interrupted benchmark."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench import measure, report, time_to_accuracy, training
from bench.time_to_accuracy import load_partial, main, partial_path, subject_of, summarise
from fastcifar.config import Config
from fastcifar.errors import UserError


def record(seed: int, single: float, tta: float, evaluation: str = "flip_tta", run_s: float = 10.0) -> dict:
    return {
        "recipe": "cpu90", "seed": seed, "dataset": "cifar10", "dataset_sha256": "f" * 64, "epochs": 5, "steps": 500,
        "parameters": 1000, "flops": 2e13, "device": "cpu", "amp": "float32", "cpu_kernels": "winograd",
        "hardware": {"cpu": "x", "threads": 2}, "versions": {"torch": "2"}, "code_revision": "abc",
        "evaluation": evaluation, "test_accuracy": single, "test_accuracy_tta": tta,
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


@pytest.fixture
def trained(tmp_path, monkeypatch) -> list[tuple[str, int]]:
    """Fake trainings, in order: how ("common" or "own" process) and the seed. Seed 9 differs between the two."""
    done: list[tuple[str, int]] = []

    @contextmanager
    def common(config: Config) -> Iterator[Any]:
        done.append(("prepared", config.batch_size))

        def run(seed: int) -> dict[str, Any]:
            done.append(("common", seed))
            found = record(seed, 0.9, 0.91)
            return found | {"weights_sha256": f"{seed}", "clock": found["clock"] | {"process_s": None}}

        yield run

    def own(arguments: list[str], seed: int, data: Path) -> dict[str, Any]:
        done.append(("own", seed))
        return record(seed, 0.9, 0.91, run_s=20) | {"weights_sha256": "other" if seed == 9 else f"{seed}"}

    monkeypatch.setattr(time_to_accuracy.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "new" / "results")
    monkeypatch.setattr(time_to_accuracy, "in_one_process", common)
    monkeypatch.setattr(training, "train_once", own)
    return done


def result_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    main(["--recipe", "cpu90", *map(str, arguments)])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_seeds_are_trained_in_one_process_and_some_again_for_the_process_clock(small_data, trained, tmp_path, capsys):
    out = tmp_path / "x.json"
    result = result_of(capsys, "--data", small_data, "--runs", 4, "--processes", 2, "--out", out)
    assert trained == [("prepared", 500), *(("common", seed) for seed in range(4)), ("own", 0), ("own", 1)]
    assert (result["n"], result["same_bits"]) == (4, True)
    assert {name: one["median"] for name, one in result["clock"].items()} == {
        "train_s": 9, "run_s": 10, "process_s": 21,
    }  # fmt: skip
    assert set(result["clock_from"]) == set(result["clock"])
    written = json.loads(out.read_text())
    assert [one["seed"] for one in written["runs"]] == [0, 1, 2, 3]
    assert written["processes"][1] == {
        "seed": 1, "clock": {"train_s": 19, "run_s": 20, "process_s": 21}, "weights_sha256": "1",
    }  # fmt: skip
    assert report.render({"a": written})


def test_other_weights_in_a_process_of_its_own_are_noticed(small_data, trained, capsys):
    assert result_of(capsys, "--data", small_data, "--runs", 1, "--first-seed", 9)["same_bits"] is False


def test_without_separate_starts_there_is_no_process_clock(small_data, trained, capsys):
    result = result_of(capsys, "--data", small_data, "--runs", 1, "--processes", 0)
    assert set(result["clock"]) == {"train_s", "run_s"}
    assert result["same_bits"] is None
    assert trained == [("prepared", 500), ("common", 0)]


def test_isolated_runs_have_a_process_each(small_data, trained, capsys):
    result = result_of(capsys, "--data", small_data, "--runs", 2, "--isolated")
    assert trained == [("own", 0), ("own", 1)]
    assert result["clock"]["process_s"]["median"] == 21
    assert "processes" not in result


def test_when_the_seconds_are_over_the_runs_so_far_are_the_result_and_the_next_command_goes_on(
    small_data, trained, capsys
):
    result = result_of(capsys, "--data", small_data, "--runs", 5, "--seconds", 0)
    assert (result["n"], trained) == (1, [("prepared", 500), ("common", 0)])
    assert "process_s" not in result["clock"]
    result = result_of(capsys, "--data", small_data, "--runs", 2)
    assert (result["n"], trained[2:]) == (2, [("prepared", 500), ("common", 1), ("own", 0), ("own", 1)])


def test_a_real_benchmark_of_a_small_network(small_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(time_to_accuracy.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(training, "keep_freed_memory", lambda: None)  # it cannot be undone
    arguments = ("--data", small_data, "--quick", "--device", "cpu", "--runs", 2, "--processes", 1)
    result = result_of(capsys, *arguments, "--out", tmp_path)
    assert (result["n"], result["same_bits"], result["steps"]) == (2, True, 12)
    assert result["clock"]["process_s"]["median"] > result["clock"]["run_s"]["median"]
    assert (tmp_path / f"time_to_accuracy-{subject_of(result)}-cpu-n2.json").exists()  # named in the given folder


def test_runs_on_other_data_or_by_other_code_are_not_reused(small_data, trained, tmp_path, monkeypatch, capsys):
    manifest = json.loads((small_data / "manifest.json").read_text())
    manifest["splits"]["test"]["sha256"] = "0" * 64
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    revision = ["one"]
    monkeypatch.setattr(time_to_accuracy, "code_revision", lambda: revision[0])
    counts = []
    for data, code in ((small_data, "one"), (tmp_path, "one"), (small_data, "one"), (small_data, "two")):
        revision[0] = code
        main(["--recipe", "cpu90", "--runs", "1", "--data", str(data), "--isolated"])
        counts.append(len(trained))
    assert counts == [1, 2, 2, 3]
    written = tmp_path / "new" / "results" / "time_to_accuracy-cpu90-cpu-n1.json"
    assert json.loads(written.read_text())["n"] == 1
    assert str(written) in capsys.readouterr().out
    assert load_partial(tmp_path / "missing.json") == []
    with pytest.raises(UserError, match=str(tmp_path / "nowhere")):
        partial_path("cpu90", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [(("--runs", "0"), "runs is 0"), (("--processes", "-1"), "processes is -1"), (("--recipe", "nix"), "'nix'")],
)
def test_mistakes(arguments: tuple[str, ...], shown: str):
    with pytest.raises(UserError, match=shown):
        main(["--recipe", "smoke", *arguments])
