"""The soak benchmark: its result file, its exit, its section of the report. The fault tests have their own tests."""

import json
from pathlib import Path

import pytest

from bench import report, soak
from bench.soak import Options, Soaked, main
from fastcifar.errors import RunFailedError, UserError


def soaked(*findings: str) -> Soaked:
    return Soaked(["name", "tried", "refused"], [["one", 1200, 7]], "A note", list(findings), {"more": {"a": 1}})


def test_the_file_and_the_report_hold_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr("bench.measure.RESULTS", tmp_path)
    monkeypatch.setitem(soak.SOAKS, "fuzz", lambda times, options: soaked())
    main(["fuzz"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result == json.loads((tmp_path / "soak-fuzz-cpu-n100000.json").read_text())
    assert (result["what"], result["subject"], result["n"], result["findings"]) == ("soak", "fuzz", 100_000, [])
    text = report.render(report.load(tmp_path))
    assert "| one | 1,200 | 7 |" in text
    assert "A note. Faults found: none." in text
    assert ".png" not in text


def test_a_fault_fails_the_command_and_is_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(soak.SOAKS, "leaks", lambda times, options: soaked("a thread", "a file"))
    with pytest.raises(RunFailedError, match=r"^2 .*a thread"):
        main(["leaks", "--out", str(tmp_path / "x.json")])
    assert json.loads((tmp_path / "x.json").read_text())["findings"] == ["a thread", "a file"]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["betons", "leaks"])
def test_a_short_soak(what: str, tmp_path: Path, capsys):
    main([what, "--times", "12", "--out", str(tmp_path / "x.json")])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["findings"] == []
    assert all(len(row) == len(result["header"]) for row in result["rows"])


@pytest.mark.parametrize(
    ("arguments", "shown"), [(["betons", "--times", "0"], "times is 0"), (["rain"], "invalid choice 'rain'")]
)
def test_mistakes(arguments: list[str], shown: str):
    with pytest.raises(UserError, match=shown):
        main(arguments)


def test_an_unknown_fuzz_target(tmp_path: Path):
    pytest.importorskip("atheris", reason="the extra `fuzz` is not installed")
    with pytest.raises(UserError, match="rain"):
        soak._fuzz(1, Options(what="fuzz", targets=("rain",), work=tmp_path))
