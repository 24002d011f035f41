"""Shared by all benchmarks: statistics of repetitions, the machine's description, tables, result files."""

import hashlib
import json
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from fastcifar.analysis.statistics import interval
from fastcifar.errors import RunFailedError, UserError
from fastcifar.files import write_json
from fastcifar.runs.record import environment
from fastcifar.runtime.device import Runtime
from fastcifar.runtime.progress import progress

RESULTS = Path(__file__).parent / "results"
Table = tuple[Sequence[str], list[list[str]]]
"""Header and rows."""


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, extremes and quartiles of repetitions; quartiles by linear interpolation."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {"median": statistics.median(values), "min": min(values), "q1": low, "q3": high, "max": max(values)}


def ratios(values: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """Summary of the ratios within each round, in which a drift of the machine cancels."""
    return summary([value / reference for value, reference in zip(values, base, strict=True)])


def mean_interval(values: Sequence[float]) -> dict[str, float | None]:
    """`mean`, `sd` and `ci95`, half the width of the mean's 95% interval; the latter two are None for one value."""
    return dict(zip(("mean", "sd", "ci95"), interval(values), strict=True))


def interleave(candidates: dict[str, Callable[[], Any]], runs: int, label: str) -> dict[str, list[Any]]:
    """Calls every candidate once per round, for `runs` rounds; the order rotates from round to round."""
    names = list(candidates)
    results: dict[str, list[Any]] = {name: [] for name in names}
    with progress(label, runs * len(names), "repetitions") as bar:
        for round_number in range(runs):
            for position in range(len(names)):
                name = names[(round_number + position) % len(names)]
                results[name].append(candidates[name]())
                bar.update(round_number * len(names) + position + 1)
    return results


def seconds(work: Callable[[], Any], synchronise: Callable[[], None]) -> float:
    """Seconds that `work` takes, with the device idle before and after."""
    synchronise()
    start = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - start


def check_runs(runs: int) -> None:
    """Raises UserError unless `runs` is positive."""
    if runs < 1:
        raise UserError(f"runs is {runs}, but must be at least 1")


def check_out(out: Path | None) -> None:
    """Makes the folder of the result file before anything is measured; raises UserError if that fails."""
    folder = RESULTS if out is None else out.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {folder} for the result: {error.strerror}; choose another --out") from None


def power_cap() -> float | None:
    """The GPU's power limit in watts; None if nvidia-smi does not tell."""
    command = ["nvidia-smi", "--query-gpu=power.limit", "--format=csv,noheader,nounits"]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
        return float(printed.splitlines()[torch.cuda.current_device()])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def source_digest(*folders: str) -> str:
    """SHA-256 of the Python files in these folders of the project; unlike the revision it sees uncommitted changes."""
    root, found = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(path for folder in folders for path in (root / folder).rglob("*.py")):
        found.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return found.hexdigest()


def described(runtime: Runtime) -> dict[str, Any]:
    """Device, hardware, versions and code revision, for a result file."""
    facts = environment(runtime)
    facts["device"] = runtime.device.type
    if runtime.device.type == "cuda":
        facts["hardware"]["power_cap_w"] = power_cap()
    return facts


def device_name(result: dict[str, Any]) -> str:
    """The device in file names: `cpu`, or the GPU's name in lower case with hyphens."""
    if result["device"].startswith("cpu"):
        return "cpu"
    return re.sub(r"[^a-z0-9]+", "-", result["hardware"]["gpu"].lower()).strip("-")


def short_revision(revision: str | None) -> str:
    """A code revision of a record for people: twelve digits, and whether files differed from it."""
    commit, plus, changes = (revision or "unknown").partition("+")
    return commit[:12] + plus + changes


def result_path(result: dict[str, Any], subject: str, out: Path | None = None) -> Path:
    """`out`, or `<benchmark>-<subject>-<device>-n<runs>.json` in bench/results/ or in the folder `out`."""
    if out is not None and not out.is_dir():
        return out
    return (out or RESULTS) / f"{result['what']}-{subject}-{device_name(result)}-n{result['n']}.json"


def text_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Plain text: the first column aligned left, the others right."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def figure(value: float) -> str:
    """Three significant digits, with thousands separators and without exponents."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"


def ranged(summary: dict[str, float], show: Callable[[float], str] = figure) -> str:
    """Median, with the smallest and the largest value in brackets."""
    return f"{show(summary['median'])} ({show(summary['min'])} to {show(summary['max'])})"


def milliseconds(summary_s: dict[str, float]) -> str:
    """A summary in seconds as `ranged` milliseconds."""
    return ranged(summary_s, lambda seconds: figure(1e3 * seconds))


def finish(result: dict[str, Any], table: Table, out: Path) -> None:
    """Writes the result file, prints the table and, as the last line, the JSON. Raises RunFailedError for NaN."""
    try:
        write_json(out, result)
    except ValueError as error:
        raise RunFailedError(f"the result contains NaN or infinity: {error}") from error
    print(text_table(*table))
    print(f"wrote {out}")
    print(json.dumps(result))
