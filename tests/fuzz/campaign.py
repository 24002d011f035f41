"""Runs `driver.py` repeatedly until a target has tried a number of inputs; `bench soak` uses it."""

import json
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fastcifar.runs.record import code_revision

DRIVER = Path(__file__).with_name("driver.py")
LIMITS = {"timeout": 10, "rss_limit_mb": 1600, "max_len": 16384}
"""Limits of one input under libFuzzer's names: seconds, MiB (the process with PyTorch takes 560), bytes."""
CHUNK_INPUTS, CHUNK_S = 20_000, 60
MAX_FINDINGS = 10
FOUND = re.compile(
    r"^\s*([\w.]*(?:Error|Exit|Warning|Exception)\b.*|.*ERROR: libFuzzer.*|.*Test unit written.*)$", re.M
)


@dataclass
class Tally:
    """The inputs, coverage and findings of a target so far; stored beside the corpus between calls."""

    code_revision: str | None
    inputs: int = 0
    seconds: float = 0.0
    edges: int = 0
    features: int = 0
    corpus: int = 0
    findings: list[str] = field(default_factory=list)


def run_target(target: str, times: int, work: Path, until: float) -> Tally:
    """Tries inputs until there are `times` of them or MAX_FINDINGS findings, or `time.monotonic()` passes `until`."""
    work.mkdir(parents=True, exist_ok=True)
    tally_file = work / "tally.json"
    revision = code_revision()
    tally = Tally(**json.loads(tally_file.read_text())) if tally_file.exists() else Tally(revision)
    if tally.code_revision != revision:  # counts of other code do not apply, but its corpus stays
        tally = Tally(revision)
    while tally.inputs < times and len(tally.findings) < MAX_FINDINGS and time.monotonic() < until:
        _one_chunk(target, min(CHUNK_INPUTS, times - tally.inputs), work, tally)
        tally_file.write_text(json.dumps(asdict(tally)))
    return tally


def _one_chunk(target: str, inputs: int, work: Path, tally: Tally) -> None:
    options = [f"-{name}={value}" for name, value in LIMITS.items()]
    options += [f"-runs={inputs}", f"-max_total_time={CHUNK_S}", f"-seed={tally.inputs + 1}"]
    started = time.monotonic()
    command = [sys.executable, "-W", "ignore", str(DRIVER), target, str(work), *options]
    done = subprocess.run(command, capture_output=True, check=False)
    output = done.stderr.decode("utf-8", "replace")
    executed = re.findall(r"stat::number_of_executed_units:\s*(\d+)", output)
    if done.returncode:
        tally.findings.append(finding(output))
    elif not executed:
        raise RuntimeError(f"the fuzzer printed no statistics: {output[-300:]}")
    tally.inputs += int(executed[-1]) if executed else 0
    tally.seconds = round(tally.seconds + time.monotonic() - started, 1)
    for coverage in re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", output)[-1:]:
        tally.edges, tally.features, tally.corpus = map(int, coverage)


def finding(text: str) -> str:
    """The errors that libFuzzer and Python print for an input, in one line."""
    return "; ".join(dict.fromkeys(line.strip() for line in FOUND.findall(text))) or text[-300:]
