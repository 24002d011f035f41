"""`python -m bench report`: the result files as REPORT.md and plots, with nothing in them but what the files say."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import ablations
from bench.measure import RESULTS, figure
from bench.plots import DRAWN, draw, place_of
from bench.published import comparison
from fastcifar.config import KERNEL_NAMES, evaluations_of
from fastcifar.errors import UserError
from fastcifar.files import write_text

HERE = Path(__file__).parent
TITLES = {
    "time_to_accuracy": "Time to accuracy",
    "ablations": "What each lever is worth",
    "reproduce": "The five published systems",
    "epochs": "Training epochs",
    "loaders": "Loaders",
    "kernels": "The fused kernel",
    "layers": "Layers on a CPU",
    "overhead": "The trainer's own work",
    "soak": "What must not fail, done often",
}
OPENING = """# Report

Written by `python -m bench report` from the files in `results/`; edits here are lost. What each clock covers, and how
to take the figures again, stands in [README.md](README.md).
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Write REPORT.md and plots/ from the result files."""

    results: Path = RESULTS
    """Folder of the result files."""
    out: Path = HERE / "REPORT.md"
    """The report; the plots are in plots/ beside it."""


def main(arguments: list[str]) -> None:
    """Writes the report and its plots; the last line is JSON."""
    from fastcifar.cli.parsing import parse

    options = parse(Options, arguments, prog="python -m bench report")
    results = load(options.results)
    plots = options.out.parent / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    for name, result in results.items():
        if result["what"] in DRAWN:
            draw(result, plots / f"{name}.png")
    write_text(options.out, render(results))
    print(f"{len(results)} results in {options.out}")
    print(json.dumps({"report": str(options.out), "results": list(results)}))


def load(folder: Path) -> dict[str, dict[str, Any]]:
    """The results by file name without its ending, in the order of the report; UserError for one that is none."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {path}: {error}") from None
        if not isinstance(result, dict) or result.get("what") not in TITLES:
            raise UserError(f"{path} is not a result of a measurement: its `what` must be one of {', '.join(TITLES)}")
        found[path.stem] = result
    if not found:
        raise UserError(f"there are no results in {folder}; take some with `python -m bench`")
    order = list(TITLES)
    return dict(sorted(found.items(), key=lambda item: (order.index(item[1]["what"]), item[0])))


def render(results: dict[str, dict[str, Any]]) -> str:
    """The report as Markdown, a pure function of the results."""
    parts = [OPENING]
    for what, title in TITLES.items():
        chosen = {name: result for name, result in results.items() if result["what"] == what}
        if chosen:
            parts.append(f"## {title}\n")
        for name, result in chosen.items():
            parts.append(_section(name, result))
    return "\n".join(parts)


def _section(name: str, result: dict[str, Any]) -> str:
    header, rows, note = SECTIONS[result["what"]](result)
    data = "" if result.get("dataset", "cifar10") == "cifar10" else f" {result['dataset']} data."
    revision = (result["code_revision"] or "unknown")[:12]
    changed = "+changes" if (result["code_revision"] or "").endswith("+changes") else ""
    cap = result["hardware"].get("power_cap_w")
    versions = result["versions"]
    facts = (
        f"[{name}.json](results/{name}.json): {place_of(result)}{f', {cap:.0f} W' if cap else ''}, n = {result['n']}, "
        f"torch {versions.get('torch')}, numba {versions.get('numba')}, code {revision}{changed}.{data}"
    )
    plot = f"![{name}](plots/{name}.png)\n" if result["what"] in DRAWN else ""
    return "\n\n".join([f"### {name}", facts, note, markdown(header, rows), plot])


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, figures to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def ranged(summary: dict[str, float]) -> str:
    """Median, and smallest and largest in brackets."""
    return f"{figure(summary['median'])} ({figure(summary['min'])} to {figure(summary['max'])})"


Table = tuple[Sequence[str], list[list[str]], str]


def _time_to_accuracy(result: dict[str, Any]) -> Table:
    header = ("evaluation", "mean", "± 95%", "sd")
    rows = []
    views = evaluations_of(result["runs"][0]["evaluation"])
    for key, label in zip(("test_accuracy", "test_accuracy_tta"), views.values(), strict=True):
        one = result[key]
        spread = ["-" if one[k] is None else f"{100 * one[k]:.2f}" for k in ("ci95", "sd")]
        rows.append([label + (" (counts)" if key == result["counts"] else ""), f"{one['mean']:.2%}", *spread])
    clock = "; ".join(f"{name.removesuffix('_s')} {ranged(one)} s" for name, one in result["clock"].items())
    fraction = f"{result['fraction_at_target']:.0%} of the runs reach {result['target']:.0%}."
    flops = f", {result['flops'] / 1e12:,.1f} TFLOP a training" if result.get("flops") else ""
    return header, rows, f"Recipe {result['recipe']}, {result['epochs']:g} epochs{flops}. Clocks: {clock}. {fraction}"


def _ablations(result: dict[str, Any]) -> Table:
    header, rows = ablations.table_of(result)
    note = (
        f"Recipe {result['recipe']}, {result['epochs']:g} epochs, whole test set, means in percent with their 95% "
        "intervals. Seed by seed: the difference of the accuracy that counts, and the run clocks' quotients (medians)."
    )
    return header, rows, note


def _reproduce(result: dict[str, Any]) -> Table:
    header, rows = comparison(result)
    note = (
        "Published / ours; ours is one view of each test image after the last step. Training accuracy is that of "
        "augmented images, over the last epoch. The machines behind the published seconds are not known; a system "
        "that was cut short cannot be held against its published accuracy."
    )
    return header, rows, note


def _epochs(result: dict[str, Any]) -> Table:
    header = ("stage", "epoch s", "data wait s", "step s", "evaluation s", "x first", "x before")
    keys = ("epoch_s", "data_s", "step_s", "evaluation_s", "times_first", "times_before")
    rows = [[name, *(ranged(one[key]) for key in keys)] for name, one in result["stages"].items()]
    first = next(iter(result["stages"].values()))
    note = (
        f"{result['network']}, width {result['width']}, batch {result['batch_size']}, AMP is {result['amp']}, "
        f"{result['workers']} DataLoader processes; {first['images']:,} training and {first['test_images']:,} test "
        "images a turn. Median (smallest to largest); quotients are of the same round."
    )
    return header, rows, note


def _loaders(result: dict[str, Any]) -> Table:
    header = (
        "loader", "images a turn", "images/s", "epoch s", "build s", "first batch s", "memory MiB",
        "x resident", "x torchvision",
    )  # fmt: skip
    rows = []
    for name, one in result["contestants"].items():
        quotients = [ranged(one[key]) if one[key] else "-" for key in ("times_ours", "times_torchvision")]
        memory = figure(one["memory_mib"] + one["workers_mib"])
        openings = [figure(one["build_s"]), figure(one["warm_up_first_batch_s"])]
        timed = [ranged(one["images_per_s"]), ranged(one["epoch_s"])]
        rows.append([name, f"{one['images']:,}", *timed, *openings, memory, *quotients])
    fastest = next(iter(result["contestants"].values()))["torchvision"]
    against = f"; the last column is against {fastest}, the fastest of torchvision's" if fastest else ""
    note = f"Batch {result['batch_size']}; {result['output']}. Median (smallest to largest){against}."
    return header, rows, note


def _kernels(result: dict[str, Any]) -> Table:
    header = ("output, type, threads, batch", "images/s", "GB/s", "copy GB/s", "fraction of the copy")
    rows = []
    for case in result["cases"]:
        label = f"{case['output']}, {case['dtype']}, {case['threads']}, {case['batch']}"
        fraction = case["fraction_of_copy"]
        fractions = f"{fraction['median']:.0%} ({fraction['min']:.0%} to {fraction['max']:.0%})"
        rows.append([label, *(ranged(case[key]) for key in ("images_per_s", "gb_per_s", "copy_gb_per_s")), fractions])
    used = {case["output"] for case in result["cases"]}
    outputs = "; ".join(f"{name}: {text}" for name, text in result["outputs"].items() if name in used)
    note = f"{result['traffic']}. The copy moves as many bytes through memory that no cache holds. Output {outputs}."
    return header, rows, note


def _layers(result: dict[str, Any]) -> Table:
    header = ("a step at", "ms", "torch's / this")
    rows = [
        [
            f"{size} px, {KERNEL_NAMES[name]}",
            ranged({key: 1e3 * value for key, value in one["step_s"].items()}),
            ranged(one["torch_over_this"]),
        ]
        for size, kinds in result["steps"].items()
        for name, one in kinds.items()
    ]
    return header, rows, f"Recipe {result['recipe']}, batch {result['batch_size']}, float32. {result['clock']}."


def _overhead(result: dict[str, Any]) -> Table:
    header = ("step", "ms", "own work")
    rows = [
        [f"{size} px", ranged({key: 1e3 * value for key, value in one["step_s"].items()}), f"{one['own_fraction']:.3%}"]
        for size, one in result["steps"].items()
    ]
    note = (
        f"Recipe {result['recipe']}, batch {result['batch_size']}. Metrics, checks, progress, signals and checkpoint_schedule "
        f"of checkpoints take {ranged(result['own_us'])} microseconds a step, by a training whose steps do nothing."
    )
    return header, rows, note


def _soak(result: dict[str, Any]) -> Table:
    found = "; ".join(result["findings"]) or "nothing"
    rows = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in result["rows"]]
    return result["header"], rows, f"{result['note']}. Found: {found}. It took {result['seconds']:,.0f} s."


SECTIONS: dict[str, Callable[[dict[str, Any]], Table]] = {
    "time_to_accuracy": _time_to_accuracy,
    "ablations": _ablations,
    "reproduce": _reproduce,
    "epochs": _epochs,
    "loaders": _loaders,
    "kernels": _kernels,
    "layers": _layers,
    "overhead": _overhead,
    "soak": _soak,
}


if __name__ == "__main__":
    from fastcifar.cli.console import run_command

    run_command(main)
