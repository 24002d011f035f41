"""The soak command: what it writes, how it ends, and that the report shows it; what it runs is tested where it lies."""

import json
from pathlib import Path

import pytest

from bench import report, soak
from bench.soak import Options, Soaked, main
from fastcifar.errors import RunFailedError, UserError


def soaked(*findings: str) -> Soaked:
    return Soaked(["name", "tried", "refused"], [["one", 1200, 7]], "A note", list(findings), {"more": {"a": 1}})


def test_the_file_and_the_report_have_what_a_soak_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setitem(soak.SOAKS, "betons", lambda times, options: soaked())
    main(["betons", "--times", "12", "--out", str(tmp_path / "x.json")])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result == json.loads((tmp_path / "x.json").read_text())
    assert (result["what"], result["subject"], result["n"], result["findings"]) == ("soak", "betons", 12, [])
    text = report.render(report.load(tmp_path))
    assert "| one | 1,200 | 7 |" in text
    assert "A note. Found: nothing." in text
    assert ".png" not in text


def test_a_finding_fails_the_command_and_stands_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(soak.SOAKS, "leaks", lambda times, options: soaked("a thread", "a file"))
    with pytest.raises(RunFailedError, match="2 findings, the first: a thread"):
        main(["leaks", "--out", str(tmp_path / "x.json")])
    assert json.loads((tmp_path / "x.json").read_text())["findings"] == ["a thread", "a file"]


def test_the_file_is_named_after_the_soak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys):
    monkeypatch.setattr("bench.measure.RESULTS", tmp_path)
    monkeypatch.setitem(soak.SOAKS, "fuzz", lambda times, options: soaked())
    main(["fuzz"])
    assert [path.name for path in tmp_path.iterdir()] == ["soak-fuzz-cpu-n100000.json"]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["betons", "leaks"])
def test_a_short_soak(what: str, tmp_path: Path, capsys):
    main([what, "--times", "12", "--out", str(tmp_path / "x.json")])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["findings"] == []
    assert all(len(row) == len(result["header"]) for row in result["rows"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["betons", "--times", "0"], "times is 0, but must be at least 1"), (["rain"], "invalid choice 'rain'")],
)
def test_mistakes(arguments: list[str], message: str):
    with pytest.raises(UserError, match=message):
        main(arguments)


def test_a_target_that_is_not_there(tmp_path: Path):
    pytest.importorskip("atheris", reason="the extra `fuzz` is not installed")
    with pytest.raises(UserError, match="no target is called rain: choose from manifest, "):
        soak._fuzz(1, Options(what="fuzz", targets=("rain",), work=tmp_path))
