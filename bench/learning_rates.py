"""`python -m bench learning_rates`: do the rates of the range test train as well as others do?

For each recipe, shortened to a few epochs of its schedule, on held-out images: the range test with several seeds, a
training at each found rate, others at fractions and multiples of it, and one at the rates of the recipe. Beside them
stand the rates that published rules find in one sweep of growing rates. An interrupted benchmark resumes from its
result file.
"""

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np

from bench.held_out import held_out_set
from bench.measure import Table, check_out, check_runs, described, finish, result_path
from bench.reproduce import shortened
from bench.training import Device, recipe_config
from fastcifar.analysis.lr_range import lr_range_test, opened, train_at, with_rates
from fastcifar.analysis.lr_search import Found
from fastcifar.analysis.rate_tables import as_json
from fastcifar.cli.parsing import parse
from fastcifar.config import Config
from fastcifar.files import write_json
from fastcifar.runtime.device import select_runtime
from fastcifar.runtime.threads import keep_freed_memory
from fastcifar.training.trainer import Trainer

FACTORS = (0.3, 1.0, 3.0, 10.0)
DIVERGED = 4.0
"""A sweep ends when its smoothed loss exceeds the lowest so many times, as in fastai."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Compare short trainings at the rates of the range test, at others, and at those of the recipe."""

    recipes: str = "cpu90,system_a,system_b,system_c,system_d,system_e,resnet24"
    """Names of recipes, separated by commas."""
    epochs: float = 3.0
    """Length of the trainings; the schedule is shortened accordingly."""
    runs: int = 3
    """Seeds of the range test. All trainings have seed 0."""
    data: Path = Path("data")
    """Folder of the prepared data; its test split is not read."""
    work: Path = Path(gettempdir())
    """Folder in which the held-out set is written."""
    device: Device = "auto"
    """Device to train on."""
    out: Path | None = None
    """Result file, or an existing folder for it. Default: a file in bench/results/ named after the benchmark."""
    quick: bool = False
    """Small networks for a few steps, to check that the benchmark works."""


def main(arguments: list[str]) -> None:
    """Trains what the result file lacks, writes it after each training, and prints a table and the JSON."""
    options = parse(Options, arguments, prog="python -m bench learning_rates")
    check_runs(options.runs)
    check_out(options.out)
    names = list(dict.fromkeys(options.recipes.split(",")))
    recipes = {name: recipe_config(name, options.data, options.device, quick=options.quick) for name in names}
    data = held_out_set(options.data, options.work)
    keep_freed_memory()
    result: dict[str, Any] = {
        "what": "learning_rates",
        **described(select_runtime(recipes[names[0]])),
        "n": options.runs,
        "epochs": options.epochs,
        "recipes": {},
    }
    path = result_path(result, f"e{options.epochs:g}", options.out)
    with suppress(OSError, ValueError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if (kept["what"], kept["epochs"]) == (result["what"], result["epochs"]):
            result["recipes"] = kept["recipes"]
    for name, recipe in recipes.items():
        config = replace(recipe, data=data, evaluate_every=0, checkpoint_every="0")
        config = config if options.quick else shortened(config, options.epochs / recipe.epochs)
        measured = result["recipes"].setdefault(name, {"tests": {}, "trainings": {}})
        _measure(config, measured, options.runs, lambda: write_json(path, result))
    finish(result, table_of(result), path)


def _measure(config: Config, measured: dict[str, Any], runs: int, save: Callable[[], None]) -> None:
    """Adds to `measured` what it lacks."""
    if "sweep" not in measured:
        measured["sweep"] = sweep(config)
        save()
    for seed in map(str, range(runs)):
        if seed not in measured["tests"]:
            test = lr_range_test(replace(config, seed=int(seed)))
            measured["tests"][seed] = as_json(test, config) | {"seed": int(seed)}
            save()
    tests = measured["tests"].values()
    wanted = {f"{one['max']:g}": with_rates(config, Found(one["max"], one["min"], 0.0)) for one in tests}
    first = measured["tests"]["0"]
    for factor in FACTORS:
        rates = Found(float(f"{factor * first['max']:.3g}"), factor * first["min"], 0.0)
        wanted.setdefault(f"{rates.maximum:g}", with_rates(config, rates))
    wanted["recipe"] = config
    for label, one in wanted.items():
        if label not in measured["trainings"]:
            measured["trainings"][label] = _train(one)
            print(f"{config.recipe} {label}: {measured['trainings'][label]}", flush=True)
            save()


def _train(config: Config) -> dict[str, Any]:
    """Peak rate and accuracies of a training, without its folder."""
    with tempfile.TemporaryDirectory() as runs:
        _, record = Trainer(replace(config, runs=Path(runs))).train(config.seed)
    names = ("test_accuracy", "test_accuracy_tta", "train_accuracy")
    return {"lr": config.optimizer.lr} | {name: round(record[name], 4) for name in names}


def sweep(config: Config) -> dict[str, Any]:
    """One training of 100 steps whose rate grows from 1e-7 to 10, fastai's defaults, and what published rules find."""
    rates = np.geomspace(1e-7, 10, 100)
    with opened(config) as (context, loader):
        losses = np.array(train_at(context, loader, rates.tolist(), lambda rate, loss: None))
    average, smooth = 0.0, []
    for step, loss in enumerate(losses, 1):
        average = 0.98 * average + 0.02 * float(loss)
        smooth.append(average / (1 - 0.98**step))
        if not np.isfinite(smooth[-1]) or smooth[-1] > DIVERGED * min(smooth):
            break
    found = {name: float(f"{rule(rates, np.array(smooth)):.3g}") for name, rule in RULES.items()}
    return {"losses": [float(loss) if np.isfinite(loss) else None for loss in losses], "rules": found}


def _valley(rates: np.ndarray, losses: np.ndarray) -> float:
    """fastai's default: two thirds along the longest decreasing subsequence of the losses."""
    length, before = np.ones(len(losses), int), np.full(len(losses), -1)
    for i in range(1, len(losses)):
        above = np.flatnonzero(losses[:i] > losses[i])
        if len(above):
            before[i] = above[np.argmax(length[above])]
            length[i] = length[before[i]] + 1
    first = last = int(np.argmax(length))
    while before[first] >= 0:
        first = int(before[first])
    return rates[first + int((last - first) * 2 / 3)]


RULES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "minimum / 10 (fastai)": lambda rates, losses: rates[np.argmin(losses)] / 10,
    "valley (fastai)": _valley,
    "steepest (torch-lr-finder)": lambda rates, losses: rates[np.argmin(np.gradient(losses))],
}


def table_of(result: dict[str, Any]) -> Table:
    """A row for each recipe: the rates found, accuracies by factor, of the recipe, and the rates of published rules."""
    multiples = [factor for factor in FACTORS if factor != 1]
    header = ["recipe", "found", "at found", *(f"x {factor:g}" for factor in multiples), "recipe's", "behind", *RULES]
    rows = []
    for name, one in result["recipes"].items():
        found = [test["max"] for test in one["tests"].values()]
        trained = {label: run["test_accuracy"] for label, run in one["trainings"].items()}
        at_found = [trained[f"{rate:g}"] for rate in found]
        others = [trained[f"{float(f'{factor * found[0]:.3g}'):g}"] for factor in multiples]
        behind = max([*others, *at_found, trained["recipe"]]) - min(at_found)
        rows.append([
            name, ", ".join(f"{rate:g}" for rate in found), ", ".join(f"{value:.2%}" for value in at_found),
            *(f"{value:.2%}" for value in others),
            f"{trained['recipe']:.2%} at {one['trainings']['recipe']['lr']:g}", f"{100 * behind:.2f} points",
            *(f"{rate:g}" for rate in one["sweep"]["rules"].values()),
        ])  # fmt: skip
    return header, rows
