"""The result of a command in a few words, for the table of `python -m bench gpu`."""

from collections.abc import Callable, Sequence
from typing import Any

from bench.kernels import LARGE
from bench.measure import figure

Result = dict[str, Any]


def headline(result: Result, lines: Sequence[str]) -> str:
    """For the JSON of a benchmark; the last line of the output for a command without one."""
    shown = HEADLINES.get(result.get("what", ""))
    if shown is not None:
        return shown(result)
    return next((line.strip(" =") for line in reversed(lines) if line.strip(" =")), "")


def _environment(result: Result) -> str:
    hardware, smi = result["hardware"], result.get("nvidia_smi", {})
    known = [smi[key] for key in ("driver_version", "power.limit") if key in smi]
    place = ", ".join([hardware.get("gpu") or hardware["cpu"], *known])
    versions = result["versions"]
    return f"{place}, torch {versions['torch']}, numba-cuda {versions['numba-cuda']}, Python {versions['python']}"


def _kernel_bits(result: Result) -> str:
    return ", ".join(
        f"{name}: {one['differing']} of {one['cases']} differ" for name, one in result["implementations"].items()
    )


def _self_check(result: Result) -> str:
    found = ((name, one["paths"], len(one["findings"])) for name, one in result["recipes"].items())
    return ", ".join(f"{name} {'/'.join(paths.values())} {count} findings" for name, paths, count in found)


def _kernels(result: Result) -> str:
    kernel = [case for case in result["cases"] if case["output"] != "tensors"]
    large = [case for case in kernel if case["batch"] >= LARGE] or kernel
    best: dict[str, Result] = {}
    for case in large:
        fraction = case["fraction_of_copy"]["median"]
        if case["dtype"] not in best or fraction > best[case["dtype"]]["fraction_of_copy"]["median"]:
            best[case["dtype"]] = case
    return "of copy bandwidth: " + ", ".join(
        f"{dtype} {case['fraction_of_copy']['median']:.0%} (batch {case['batch']})" for dtype, case in best.items()
    )


def _loaders(result: Result) -> str:
    rates = (f"{name} {figure(one['images_per_s']['median'])}" for name, one in result["candidates"].items())
    return "images/s: " + ", ".join(rates)


def _time_to_accuracy(result: Result) -> str:
    half = "" if result["ci95"] is None else f" ± {100 * result['ci95']:.2f}"
    clocks = ", ".join(f"{name.removesuffix('_s')} {figure(one['median'])} s" for name, one in result["clock"].items())
    paths = "".join(f", {path}" for path in result.get("paths", {}).values())
    return f"{result['mean']:.2%}{half}, {clocks}, n = {result['n']}{paths}"


def _profile(result: Result) -> str:
    shown = []
    for size, one in result["sizes"].items():
        busy = "" if one["busy_ms"] is None else f" (busy {one['busy_ms'] / one['wall_ms']:.0%})"
        shown.append(f"{size} px {figure(one['wall_ms'])} ms{busy}")
    return ", ".join(shown)


def _search(result: Result) -> str:
    best = result["tried"][0]
    below = "" if result["reached"] else ", below the target"
    return f"{best['changes']}: {best['mean']:.2%} held out, run {figure(min(best['run_s']))} s{below}"


HEADLINES: dict[str, Callable[[Result], str]] = {
    "environment": _environment,
    "kernel_bits": _kernel_bits,
    "self_check": _self_check,
    "kernels": _kernels,
    "loaders": _loaders,
    "time_to_accuracy": _time_to_accuracy,
    "profile": _profile,
    "search": _search,
}
"""By `what`."""
