"""Statistics, tables and result files of the benchmarks, and their list."""

import json
import subprocess
from typing import Any

import pytest

from bench import measure
from bench.__main__ import COMMANDS
from bench.__main__ import main as bench_main
from bench.measure import check_out, check_runs, device_name, figure, finish, interleave, ratios, summary, text_table
from fastcifar.errors import RunFailedError, UserError


def test_statistics():
    assert summary([4, 1, 3, 2, 5]) == {"median": 3, "min": 1, "q1": 2, "q3": 4, "max": 5}
    assert set(summary([7.0]).values()) == {7.0}
    # twice as fast in both rounds, though the machine was ten times slower in the second
    assert ratios([20.0, 2.0], [10.0, 1.0]) == summary([2.0, 2.0])
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])


def test_every_candidate_is_measured_in_every_round_and_the_order_rotates():
    calls: list[str] = []
    results = interleave({name: lambda name=name: calls.append(name) or len(calls) for name in "abc"}, 3, "test")
    assert "".join(calls) == "abcbcacab"
    assert results == {"a": [1, 6, 8], "b": [2, 4, 9], "c": [3, 5, 7]}


def test_figures_and_tables():
    shown = [figure(value) for value in (0, 0.01234, 1.234, 12.34, 123.4, 1234567)]
    assert shown == ["0", "0.012", "1.23", "12.3", "123", "1,234,567"]
    assert text_table(("name", "x"), [("a", 1), ("longer", 100)]) == "name      x\na         1\nlonger  100"


def test_the_device_in_file_names(monkeypatch: pytest.MonkeyPatch):
    assert device_name({"device": "cpu"}) == "cpu"
    assert device_name({"device": "cuda", "hardware": {"gpu": "NVIDIA H100 80GB HBM3"}}) == "nvidia-h100-80gb-hbm3"

    def missing(*_: Any, **__: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", missing)
    assert measure.power_cap() is None


def test_the_last_line_is_the_json_of_the_file(tmp_path, capsys):
    finish({"what": "x", "n": 1}, (("a",), [["b"]]), tmp_path / "x.json")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["a", "b"]
    assert json.loads(lines[-1]) == json.loads((tmp_path / "x.json").read_text()) == {"what": "x", "n": 1}
    with pytest.raises(RunFailedError):
        finish({"loss": float("nan")}, (("a",), []), tmp_path / "y.json")
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_mistakes_are_found_before_anything_is_measured(tmp_path, capsys):
    check_out(tmp_path / "a" / "b" / "x.json")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=str(tmp_path / "file")):
        check_out(tmp_path / "file" / "x.json")
    with pytest.raises(UserError, match="runs is 0"):
        check_runs(0)
    bench_main([])
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in COMMANDS)
    with pytest.raises(UserError, match="'nothing'"):
        bench_main(["nothing"])
