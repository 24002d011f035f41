"""What all measurements share: summaries of repetitions, ratios, the machine's description, a table, a result file."""

import json
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from fastcifar.errors import RunFailedError, UserError
from fastcifar.files import write_json
from fastcifar.runs.record import environment
from fastcifar.runtime.device import Runtime
from fastcifar.runtime.progress import progress

RESULTS = Path(__file__).parent / "results"


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and spread of repetitions; quartiles as `statistics.quantiles` interpolates them inside the data."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {"median": statistics.median(values), "min": min(values), "q1": low, "q3": high, "max": max(values)}


def ratios(values: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """Summary of the quotients round by round: both were taken one after the other, so drift cancels."""
    return summary([value / reference for value, reference in zip(values, base, strict=True)])


def interleave(contestants: dict[str, Callable[[], Any]], runs: int, label: str) -> dict[str, list[Any]]:
    """`runs` rounds in which everyone has a turn; each round starts with the next one, so no place is anyone's own."""
    names = list(contestants)
    taken: dict[str, list[Any]] = {name: [] for name in names}
    with progress(label, runs * len(names), "turns") as bar:
        for round_number in range(runs):
            for position in range(len(names)):
                name = names[(round_number + position) % len(names)]
                taken[name].append(contestants[name]())
                bar.update(round_number * len(names) + position + 1)
    return taken


def seconds(work: Callable[[], Any], synchronise: Callable[[], None]) -> float:
    """Seconds by perf_counter around `work`, the device idle before and after."""
    synchronise()
    start = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - start


def check_runs(runs: int) -> None:
    """UserError for a number of repetitions that measures nothing."""
    if runs < 1:
        raise UserError(f"runs is {runs}, but must be at least 1")


def check_out(out: Path | None) -> None:
    """Makes the result's folder before anything is measured; UserError where that cannot be done."""
    folder = RESULTS if out is None else out.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {folder} for the result: {error.strerror}; choose another --out") from None


def power_cap() -> float | None:
    """The GPU's power limit in watts, as nvidia-smi tells it; None where it does not."""
    command = ["nvidia-smi", "--query-gpu=power.limit", "--format=csv,noheader,nounits"]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
        return float(printed.splitlines()[torch.cuda.current_device()])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def described(runtime: Runtime) -> dict[str, Any]:
    """Device, hardware, versions and code revision, as every result file has them."""
    facts = environment(runtime)
    facts["device"] = runtime.device.type
    if runtime.device.type == "cuda":
        facts["hardware"]["power_cap_w"] = power_cap()
    return facts


def device_name(result: dict[str, Any]) -> str:
    """The device as file names have it: `cpu`, or the GPU's name in lower case with hyphens."""
    if result["device"].startswith("cpu"):
        return "cpu"
    return re.sub(r"[^a-z0-9]+", "-", result["hardware"]["gpu"].lower()).strip("-")


def result_path(result: dict[str, Any], subject: str) -> Path:
    """`<measurement>-<subject>-<device>-n<runs>.json` in bench/results/."""
    return RESULTS / f"{result['what']}-{subject}-{device_name(result)}-n{result['n']}.json"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligned plain text: the first column to the left, figures to the right."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def figure(value: float) -> str:
    """Three significant digits, thousands apart, never in powers of ten."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"


def finish(result: dict[str, Any], text: str, out: Path) -> None:
    """Writes the file, prints the table and, as the last line, the JSON."""
    try:
        write_json(out, result)
    except ValueError as error:
        raise RunFailedError(f"the result holds a figure that is none: {error}") from error
    print(text)
    print(f"written to {out}")
    print(json.dumps(result))
