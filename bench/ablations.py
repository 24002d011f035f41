"""`python -m bench ablations`: a recipe as it is and with one of its levers taken away at a time, seed by seed.

Every training is a process of its own, of its full length, evaluated on the whole test set: nothing is chosen by it. A
round trains all of them with one seed, so that a machine that changes its pace changes it for all. Interrupted, it goes
on where it was, as long as images and code revision are the same.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.measure import check_out, check_runs, figure, finish, ratios, result_path, summary, table
from bench.time_to_accuracy import partial_path, subject_of, train_once
from fastcifar.analysis.statistics import interval
from fastcifar.cli.parsing import parse
from fastcifar.config import Config, MuonConfig, SpeedNetConfig
from fastcifar.config.toml import to_toml
from fastcifar.errors import UserError
from fastcifar.files import write_json, write_text
from fastcifar.recipes import RECIPES

BASE = "the recipe"


def _changed(config: Config, part: str, **changes: Any) -> Config:
    return replace(config, **{part: replace(getattr(config, part), **changes)})


LEVERS: dict[str, Callable[[Config], Config]] = {
    BASE: lambda config: config,
    "small images first: 32 pixels throughout": lambda config: replace(config, resolution=((1.0, 32),)),
    "rates of a summed loss: of its mean": lambda config: _changed(
        config,
        "optimizer",
        bias_lr=config.optimizer.bias_lr / config.batch_size,  # type: ignore[union-attr]
        head_lr=config.optimizer.head_lr / config.batch_size,  # type: ignore[union-attr]
    ),
    "label smoothing: none": lambda config: replace(config, label_smoothing=0.0),
    "alternating flips: random ones": lambda config: _changed(config, "augment", flip="random"),
    "crops: none": lambda config: _changed(config, "augment", pad=0),
    "GELU: ReLU": lambda config: _changed(config, "model", activation="relu"),
    "whitening: a stem that learns": lambda config: _changed(config, "model", stem="learned"),
    "the identity at the start: drawn filters": lambda config: _changed(config, "model", identity=False),
    "Muon: updates as long, not orthogonalised, at a rate of 0.085": lambda config: _changed(
        config,
        "optimizer",
        steps=0,
        lr=0.085,  # for cpu90: of 0.24, 0.12, 0.085, 0.06 and 0.03 the one with the highest training accuracy
    ),
    "the stem's bias learns: it does not": lambda config: _changed(config, "model", stem_epochs=0.0),
    "short memory of batch norm: 0.1 a step": lambda config: _changed(config, "model", bn_momentum=0.1),
}
"""What a row changes: "the lever: what it becomes"."""
KEPT = ("lever", "seed", "test_accuracy", "test_accuracy_tta", "train_accuracy", "clock", "weights_sha256")
"""Of a run's record; the rest is the same in all, or follows from the lever."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train a recipe of the speed network with each of its levers taken away, n seeds each."""

    recipe: str = "cpu90"
    """A recipe of the speed network and Muon."""
    runs: int = 5
    """Seeds; the first is 0."""
    only: tuple[str, ...] = ()
    """Levers by the beginnings of their names; by default all."""
    data: Path = Path("data")
    """Prepared data."""
    out: Path | None = None
    """The result file; by default one in bench/results/ that says what it holds."""


def main(arguments: list[str]) -> None:
    """Trains, prints a line a run and a table, writes the JSON, which is its last line as well."""
    options = parse(Options, arguments, prog="python -m bench ablations")
    check_runs(options.runs)
    config = _recipe(options.recipe)
    names = _chosen(options.only)
    check_out(options.out)
    partial = partial_path(f"ablations-{options.recipe}", options.data)
    records = _finished(partial)
    for seed in range(options.runs):
        for name in names:
            if not any((name, seed) == (record["lever"], record["seed"]) for record in records):
                records.append({**_train(options, LEVERS[name](config), seed), "lever": name})
                write_json(partial, {"runs": records})
            print(_row(next(r for r in records if (name, seed) == (r["lever"], r["seed"]))), flush=True)
    wanted = [record for record in records if record["lever"] in names and record["seed"] < options.runs]
    result = summarise(wanted)
    out = result_path(result, subject_of(result)) if options.out is None else options.out
    finish(result, table(*table_of(result)), out)


def _recipe(name: str) -> Config:
    config = RECIPES[name]() if name in RECIPES else None
    if config is None or not isinstance(config.model, SpeedNetConfig) or not isinstance(config.optimizer, MuonConfig):
        raise UserError(f"recipe is {name!r}, but must be one of the speed network and Muon: cpu90, fast90, ...")
    return config


def _chosen(only: tuple[str, ...]) -> list[str]:
    for start in only:
        if not any(name.startswith(start) for name in LEVERS):
            raise UserError(f"no lever begins with {start!r}: choose one of {', '.join(map(repr, LEVERS))}")
    return [name for name in LEVERS if not only or name == BASE or name.startswith(only)]


def _finished(path: Path) -> list[dict[str, Any]]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["runs"]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _train(options: Options, config: Config, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        write_text(path, to_toml(config))
        return train_once(["--config", str(path)], seed, options.data)


def _row(record: dict[str, Any]) -> str:
    return (
        f"{record['lever']}, seed {record['seed']}: one view {record['test_accuracy']:.2%}, more views "
        f"{record['test_accuracy_tta']:.2%}; run {record['clock']['run_s']:.1f} s"
    )


def summarise(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The result file: by lever mean accuracies with their intervals, and the medians of run clocks and of quotients.

    `difference` is the mean over seeds of the accuracy that counts less that of the recipe with the same seed, with its
    95% interval; `times_base` sums up the run clocks' quotients; a file whose rounds were torn apart has null there.
    """
    base = {record["seed"]: record for record in records if record["lever"] == BASE}
    first = records[0]
    counts = "test_accuracy" if first["evaluation"] == "single_view" else "test_accuracy_tta"
    levers = {}
    for name in dict.fromkeys(record["lever"] for record in records):
        runs = [record for record in records if record["lever"] == name]
        found: dict[str, Any] = {"n": len(runs)}
        for key in ("test_accuracy", "test_accuracy_tta"):
            found[key] = _spread([run[key] for run in runs])
        found["difference"] = _spread([run[counts] - base[run["seed"]][counts] for run in runs])
        seconds = [run["clock"]["run_s"] for run in runs]
        found["run_s"] = summary(seconds)
        found["times_base"] = ratios(seconds, [base[run["seed"]]["clock"]["run_s"] for run in runs])
        levers[name] = found
    shared = ("recipe", "dataset", "dataset_sha256", "epochs", "device", "amp", "cpu_kernels", "evaluation")
    return {
        "what": "ablations",
        **{key: first[key] for key in (*shared, "hardware", "versions", "code_revision")},
        "n": len(base),
        "counts": counts,
        "levers": levers,
        "runs": [{key: record[key] for key in KEPT} for record in records],
    }


def _spread(values: list[float]) -> dict[str, float | None]:
    return dict(zip(("mean", "sd", "ci95"), interval(values), strict=True))


def table_of(result: dict[str, Any]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Header and rows of the table, for the terminal and the report."""
    header = ("lever: what it becomes", "one view", "more views", "difference", "run s", "x the recipe")
    found = []
    for name, one in result["levers"].items():
        cells = [_percent(one[key]) for key in ("test_accuracy", "test_accuracy_tta")]
        cells.append("" if name == BASE else _percent(one["difference"], sign="+"))
        found.append(
            [
                name,
                *cells,
                figure(one["run_s"]["median"]),
                figure(one["times_base"]["median"]) if one["times_base"] else "-",
            ]
        )
    return header, found


def _percent(spread: dict[str, Any], sign: str = "") -> str:
    half = "" if spread["ci95"] is None else f" ± {100 * spread['ci95']:.2f}"
    return f"{100 * spread['mean']:{sign}.2f}{half}"
