"""Stages: limits, failures, what is kept, the total time, Ctrl-C."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench.stage_runner import ROOT, Stage, StageRunner, execute

FOREVER = 1e9
HANGS = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
path = pathlib.Path(sys.argv[1])
path.with_suffix(".part").write_text(str(child.pid))
path.with_suffix(".part").rename(path)
print("started")
time.sleep(1000)
"""


def stage(name: str, code: str, *arguments: object, **fields: Any) -> Stage:
    fields = {"limit_s": 60.0, "least_s": 0.0, "headline": lambda result, lines: str(result.get("x", ""))} | fields
    return Stage(name=name, arguments=lambda _: ["-c", code, *arguments], **fields)


def runner(folder: Path, seconds: float = FOREVER, **identity: Any) -> StageRunner:
    return StageRunner(folder, time.monotonic() + seconds, identity)


def states(run: StageRunner) -> dict[str, str]:
    return {name: outcome["state"] for name, outcome in run.outcomes.items()}


def is_running(pid: int) -> bool:
    """False for a zombie, which nobody may have waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_stage_that_hangs_is_killed_with_its_children_and_leaves_its_output(tmp_path: Path):
    outcome = execute(stage("a", HANGS, tmp_path / "pid"), 3.0)
    assert (outcome["state"], outcome["exit_code"], outcome["output"]) == ("too long", None, ["started"])
    assert outcome["headline"] == "started"
    wait_until(lambda: not is_running(int((tmp_path / "pid").read_text())))


def test_children_that_a_stage_leaves_behind_are_killed(tmp_path: Path):
    outcome = execute(stage("a", HANGS.replace("time.sleep(1000)\n", "\n", 1) + "", tmp_path / "pid"), 60.0)
    assert outcome["state"] == "passed"
    wait_until(lambda: not is_running(int((tmp_path / "pid").read_text())))


def test_a_failure_is_recorded_and_the_next_stage_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = runner(tmp_path, device_name="x")
    run.run(stage("first", "import sys; print('{\"x\": 1}'); print('so much'); sys.exit('it broke')"))
    run.run(stage("second", "print('working'); print('{\"x\": \"fast\"}')"))
    assert states(run) == {"first": "failed", "second": "passed"}
    first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("first", "second"))
    assert (first["exit_code"], first["result"], first["headline"]) == (1, {"x": 1}, "1")
    assert first["output"] == ["so much", "it broke"]
    assert (second["exit_code"], second["headline"], second["output"]) == (0, "fast", ["working"])
    assert first["device_name"] == second["device_name"] == "x"
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["first", "failed"], ["second", "passed"]]
    assert lines[1].endswith("fast")


def test_a_headline_that_cannot_be_made_is_the_last_line(tmp_path: Path):
    run = runner(tmp_path)
    run.run(stage("a", "print('{}'); print('end')", headline=lambda result, lines: result["missing"]))
    run.run(stage("b", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"))
    assert run.outcomes["a"]["headline"] == "end"
    assert (run.outcomes["b"]["exit_code"], run.outcomes["b"]["state"]) == (-signal.SIGSEGV, "failed")


def test_what_has_passed_is_kept_unless_something_has_changed(tmp_path: Path):
    code = "import sys, pathlib; p = pathlib.Path(sys.argv[1]); p.write_text(p.read_text() + 'x')"
    count = tmp_path / "count"
    count.write_text("")
    fails = stage("fails", f"{code}; sys.exit(1)", count)
    for revision, expected in (("1", 1), ("1", 1), ("2", 2)):
        run = runner(tmp_path, revision=revision)
        run.run(stage("a", code, count))
        assert len(count.read_text()) == expected
    assert states(runner_after(run, stage("a", code, count))) == {"a": "kept"}
    for _ in range(2):
        runner(tmp_path, revision="2").run(fails)
    assert len(count.read_text()) == 4  # what failed is tried again


def runner_after(run: StageRunner, again: Stage) -> StageRunner:
    run.run(again)
    return run


def test_the_total_time_limits_every_stage(tmp_path: Path):
    run = runner(tmp_path, seconds=4)
    start = time.monotonic()
    run.run(stage("hangs", HANGS, tmp_path / "pid"))
    run.run(stage("late", "print('never')", least_s=1.0))
    assert time.monotonic() - start < 30
    assert states(run) == {"hangs": "too long", "late": "skipped"}
    assert not (tmp_path / "late.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_and_keeps_what_is_there(tmp_path: Path, number: signal.Signals):
    code = f"""
import signal, sys, time
from pathlib import Path
from bench.stage_runner import Stage, StageRunner
signal.signal(signal.SIGTERM, signal.default_int_handler)
run = StageRunner(Path({str(tmp_path)!r}), time.monotonic() + 1000, {{}})
for name, arguments in (("a", ["-c", "print(1)"]), ("b", ["-c", {HANGS!r}, {str(tmp_path / "pid")!r}])):
    run.run(Stage(name=name, arguments=lambda _: arguments, limit_s=900, headline=lambda *_: ""))
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    wait_until((tmp_path / "pid").exists)
    process.send_signal(number)
    assert process.wait(30) != 0
    wait_until(lambda: not is_running(int((tmp_path / "pid").read_text())))
    assert json.loads((tmp_path / "a.json").read_text())["state"] == "passed"
    assert not (tmp_path / "b.json").exists()


def test_outcomes_hold_no_paths_of_this_machine(tmp_path: Path):
    code = "import pathlib, sys, tempfile; print(pathlib.Path.home(), sys.prefix, tempfile.gettempdir(), *sys.argv)"
    run = runner(tmp_path)
    run.run(stage("a", code, ROOT / "data"))
    (kept,) = tmp_path.iterdir()
    assert str(ROOT) not in kept.read_text()
    assert "TMP" in kept.read_text()
    assert "./data" in kept.read_text()
