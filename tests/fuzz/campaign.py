"""Runs `driver.py` until a target has had its inputs, over as many calls as it takes; `bench soak` uses it."""

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
"""Of one input: seconds, MiB (the process itself has 560, PyTorch and all), bytes. libFuzzer's own names."""
CHUNK_INPUTS, CHUNK_S = 20_000, 60
MOST_FINDINGS = 10
FOUND = re.compile(
    r"^\s*([\w.]*(?:Error|Exit|Warning|Exception)\b.*|.*ERROR: libFuzzer.*|.*Test unit written.*)$", re.M
)


@dataclass
class Tally:
    """What a target has had so far, and what it has come to; kept beside the corpus from call to call."""

    code_revision: str | None
    inputs: int = 0
    seconds: float = 0.0
    edges: int = 0
    features: int = 0
    corpus: int = 0
    findings: list[str] = field(default_factory=list)


def run_target(target: str, times: int, work: Path, until: float) -> Tally:
    """Tries inputs until there were `times`, too many findings, or `time.monotonic()` is past `until`."""
    work.mkdir(parents=True, exist_ok=True)
    kept = work / "tally.json"
    revision = code_revision()
    tally = Tally(**json.loads(kept.read_text())) if kept.exists() else Tally(revision)
    if tally.code_revision != revision:  # what other code has survived says nothing of this one; its corpus helps
        tally = Tally(revision)
    while tally.inputs < times and len(tally.findings) < MOST_FINDINGS and time.monotonic() < until:
        _one_chunk(target, min(CHUNK_INPUTS, times - tally.inputs), work, tally)
        kept.write_text(json.dumps(asdict(tally)))
    return tally


def _one_chunk(target: str, inputs: int, work: Path, tally: Tally) -> None:
    options = [f"-{name}={value}" for name, value in LIMITS.items()]
    options += [f"-runs={inputs}", f"-max_total_time={CHUNK_S}", f"-seed={tally.inputs + 1}"]
    started = time.monotonic()
    command = [sys.executable, "-W", "ignore", str(DRIVER), target, str(work), *options]
    done = subprocess.run(command, capture_output=True, check=False)
    said = done.stderr.decode("utf-8", "replace")
    executed = re.findall(r"stat::number_of_executed_units:\s*(\d+)", said)
    if done.returncode:
        tally.findings.append(finding(said))
    elif not executed:
        raise RuntimeError(f"the fuzzer said nothing: {said[-300:]}")
    tally.inputs += int(executed[-1]) if executed else 0
    tally.seconds = round(tally.seconds + time.monotonic() - started, 1)
    for coverage in re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", said)[-1:]:
        tally.edges, tally.features, tally.corpus = map(int, coverage)


def finding(text: str) -> str:
    """What libFuzzer and Python say of an input that went wrong, in a line."""
    return "; ".join(dict.fromkeys(line.strip() for line in FOUND.findall(text))) or text[-300:]
