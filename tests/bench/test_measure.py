import json
import subprocess
from typing import Any

import pytest

from bench import measure
from bench.__main__ import COMMANDS
from bench.__main__ import main as bench_main
from bench.measure import check_out, check_runs, device_name, figure, finish, interleave, ratios, summary, table
from fastcifar.errors import RunFailedError, UserError


def test_summary_is_median_quartiles_and_ends():
    assert summary([4, 1, 3, 2, 5]) == {"median": 3, "min": 1, "q1": 2, "q3": 4, "max": 5}
    assert set(summary([7.0]).values()) == {7.0}


def test_ratios_are_taken_round_by_round():
    # twice as fast in every round, though the machine was ten times slower in the second
    assert ratios([20.0, 2.0], [10.0, 1.0]) == summary([2.0, 2.0])
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])


def test_everyone_has_a_turn_in_every_round_and_the_first_place_goes_round():
    turns: list[str] = []
    taken = interleave({name: lambda name=name: turns.append(name) or len(turns) for name in "abc"}, 3, "test")
    assert "".join(turns) == "abcbcacab"
    assert taken == {"a": [1, 6, 8], "b": [2, 4, 9], "c": [3, 5, 7]}


def test_figures_have_three_digits():
    shown = [figure(value) for value in (0, 0.01234, 1.234, 12.34, 123.4, 1234567)]
    assert shown == ["0", "0.012", "1.23", "12.3", "123", "1,234,567"]


def test_tables_are_aligned():
    assert table(("name", "x"), [("a", 1), ("longer", 100)]) == "name      x\na         1\nlonger  100"


def test_file_names_tell_the_device():
    assert device_name({"device": "cpu"}) == "cpu"
    assert device_name({"device": "cuda", "hardware": {"gpu": "NVIDIA H100 80GB HBM3"}}) == "nvidia-h100-80gb-hbm3"


def test_the_last_line_is_the_json_of_the_file(tmp_path, capsys):
    finish({"what": "x", "n": 1}, "a table", tmp_path / "x.json")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a table"
    assert json.loads(lines[-1]) == json.loads((tmp_path / "x.json").read_text()) == {"what": "x", "n": 1}


def test_a_figure_that_is_none_writes_no_file(tmp_path):
    with pytest.raises(RunFailedError, match="figure that is none"):
        finish({"loss": float("nan")}, "", tmp_path / "x.json")
    assert list(tmp_path.iterdir()) == []


def test_folders_are_made_and_mistakes_said_before_anything_is_measured(tmp_path):
    check_out(tmp_path / "a" / "b" / "x.json")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot make .* for the result"):
        check_out(tmp_path / "file" / "x.json")
    with pytest.raises(UserError, match="runs is 0, but must be at least 1"):
        check_runs(0)


def test_power_cap_is_none_without_the_tool(monkeypatch):
    def missing(*_: Any, **__: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", missing)
    assert measure.power_cap() is None


def test_the_list_names_every_command(capsys):
    bench_main([])
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in COMMANDS)
    with pytest.raises(UserError, match="no measurement is called 'nothing'"):
        bench_main(["nothing"])
