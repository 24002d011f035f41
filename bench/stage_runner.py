"""Runs commands one after the other within a total time, each in a process of its own with a limit of its own.

What each leaves is a file, written when it ends: state, exit code, seconds, its result and the end of its output. A
command that fails or hangs stops nothing, and one that has passed before is not run again if nothing has changed.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastcifar.files import write_json

ROOT = Path(__file__).parents[1]
PASSED, FAILED, OVER, SKIPPED, KEPT = "passed", "failed", "too long", "skipped", "kept"
OUTPUT_LINES, OUTPUT_BYTES = 150, 2**20
"""Of a command's output: what is kept, and what is read to find the result."""
Outcome = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A command and its limits."""

    name: str
    arguments: Callable[[float], Sequence[object]]
    """Of Python, from the seconds that the stage may take."""
    limit_s: float
    share: float = 1.0
    """Of the time that is left, what it takes at most."""
    least_s: float = 3.0
    """Seconds below which it is not worth starting."""
    headline: Callable[[dict[str, Any], Sequence[str]], str]
    """The result in a few words, from its JSON (empty if it printed none) and the lines of its output."""


def execute(stage: Stage, limit_s: float) -> Outcome:
    """Runs a stage to its end or for `limit_s` seconds, after which it is killed with its children."""
    command = [sys.executable, *map(str, stage.arguments(limit_s))]
    start = time.monotonic()
    with tempfile.TemporaryFile() as log:
        code = _run(command, limit_s, log)
        seconds = time.monotonic() - start
        log.seek(max(0, log.seek(0, os.SEEK_END) - OUTPUT_BYTES))
        lines = log.read().decode(errors="replace").splitlines()
    result, others = _split_result(lines)
    state = OVER if code is None else FAILED if code else PASSED
    return {
        "what": "stage",
        "stage": stage.name,
        "state": state,
        "headline": _headline(stage, state, result, others),
        "seconds": round(seconds, 2),
        "limit_s": round(limit_s, 1),
        "exit_code": code,
        "command": ["python", *command[1:]],
        "result": result,
        "output": others[-OUTPUT_LINES:],
    }


def _run(command: Sequence[str], limit_s: float, log: Any) -> int | None:
    """The exit code, negative for a signal; None if the limit was reached."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},  # what a killed process printed is not lost
        process_group=0,
    )
    try:
        return process.wait(max(0.0, limit_s))
    except subprocess.TimeoutExpired:
        return None
    finally:  # after Ctrl-C as well
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _split_result(lines: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The last line that is a JSON object, and the lines without it."""
    for number in range(len(lines) - 1, -1, -1):
        if lines[number].startswith("{"):
            with contextlib.suppress(ValueError):
                return json.loads(lines[number]), lines[:number] + lines[number + 1 :]
    return {}, lines


def _headline(stage: Stage, state: str, result: dict[str, Any], lines: Sequence[str]) -> str:
    try:
        found = stage.headline(result, lines) if result or state == PASSED else ""
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):  # a result of another form
        found = ""
    return found or next((line.strip() for line in reversed(lines) if line.strip()), "no output")


class StageRunner:
    """Runs stages until `deadline` of `time.monotonic`, writes their outcomes into `folder`, prints a line for each.

    `identity`: what an earlier outcome must have been measured with to be kept.
    """

    def __init__(self, folder: Path, deadline: float, identity: dict[str, Any]) -> None:
        self.folder, self.deadline, self.identity = folder, deadline, identity
        self.outcomes: dict[str, Outcome] = {}

    def run(self, stage: Stage) -> None:
        """Runs a stage, unless it has passed before or too little time is left."""
        left = stage.share * (self.deadline - time.monotonic())
        kept = self._kept(stage)
        if kept is not None:
            self._show(kept | {"state": KEPT})
        elif left < stage.least_s:
            why = f"{max(0.0, left):.0f} s are left for it, too little to start"
            self._show({"stage": stage.name, "state": SKIPPED, "seconds": 0.0, "headline": why})
        else:
            self.keep(execute(stage, min(stage.limit_s, left)))

    def keep(self, outcome: Outcome) -> None:
        """Writes an outcome and prints its line."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self._path(outcome["stage"]), without_places(self.identity | outcome))
        self._show(outcome)

    def _show(self, outcome: Outcome) -> None:
        self.outcomes[outcome["stage"]] = outcome
        print(
            table_line(outcome["stage"], outcome["state"], f"{outcome['seconds']:.1f}", outcome["headline"]), flush=True
        )

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _kept(self, stage: Stage) -> Outcome | None:
        try:
            outcome = json.loads(self._path(stage.name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        same = all(outcome.get(key) == value for key, value in self.identity.items())
        return outcome if same and outcome.get("state") == PASSED else None


def without_places(outcome: Outcome) -> Outcome:
    """An outcome without the paths of this machine, so that it can be published."""
    text = json.dumps(outcome)
    for place, shown in ((ROOT, "."), (sys.prefix, "PYTHON"), (tempfile.gettempdir(), "TMP"), (Path.home(), "~")):
        if str(place) != "/":
            text = text.replace(str(place), shown)
    return json.loads(text)


def table_line(name: str, state: str, seconds: str, headline: str) -> str:
    """A line of the table that grows as the stages end."""
    return f"{name:16}{state:10}{seconds:>8}  {headline[:160]}".rstrip()
