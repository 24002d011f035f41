"""`python -m bench ablations`: trains a recipe with one component replaced at a time, and compares seed by seed.

Every run is a process of its own, has the full length and is evaluated on the whole test set; nothing is chosen by the
results. A round trains all variants with one seed, so that a change in the machine's speed affects all of them. An
interrupted benchmark resumes if data and code revision are the same.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.measure import Table, check_out, check_runs, figure, finish, mean_interval, ratios, result_path, summary
from bench.time_to_accuracy import (
    ACCURACIES,
    load_partial,
    outcome,
    partial_path,
    primary_metric,
    subject_of,
)
from bench.training import in_own_processes
from fastcifar.cli.parsing import parse
from fastcifar.config import Config
from fastcifar.errors import UserError
from fastcifar.files import write_json
from fastcifar.models.speednet import SpeedNetConfig
from fastcifar.optim.muon import MuonConfig
from fastcifar.recipes import RECIPES

BASELINE = "baseline"


def _changed(config: Config, part: str, **changes: Any) -> Config:
    return replace(config, **{part: replace(getattr(config, part), **changes)})


VARIANTS: dict[str, Callable[[Config], Config]] = {
    BASELINE: lambda config: config,
    "progressive resizing: 32 pixels throughout": lambda config: replace(config, resolution=((1.0, 32),)),
    "learning rates of a summed loss: of a mean loss": lambda config: _changed(
        config,
        "optimizer",
        bias_lr=config.optimizer.bias_lr / config.batch_size,  # type: ignore[union-attr]
        head_lr=config.optimizer.head_lr / config.batch_size,  # type: ignore[union-attr]
    ),
    "label smoothing: none": lambda config: replace(config, label_smoothing=0.0),
    "alternating flips: random flips": lambda config: _changed(config, "augment", flip="random"),
    "crops: none": lambda config: _changed(config, "augment", pad=0),
    "GELU: ReLU": lambda config: _changed(config, "model", activation="relu"),
    "whitening stem: learned stem": lambda config: _changed(config, "model", stem="learned"),
    "identity initialisation: random filters": lambda config: _changed(config, "model", identity=False),
    "Muon: updates of the same norm without orthogonalisation, lr 0.085": lambda config: _changed(
        config,
        "optimizer",
        steps=0,
        lr=0.085,  # highest training accuracy of cpu90 among 0.24, 0.12, 0.085, 0.06 and 0.03
    ),
    "learned stem bias: fixed": lambda config: _changed(config, "model", stem_epochs=0.0),
    "fast batch-norm statistics: momentum 0.1": lambda config: _changed(config, "model", bn_momentum=0.1),
}
"""What each variant changes, "component: replacement"."""
KEPT = ("variant", "seed", *ACCURACIES, "train_accuracy", "clock", "weights_sha256")
"""Fields of a run's record in the result file."""
SHARED = ("recipe", "dataset", "dataset_sha256", "epochs", "device", "amp", "cpu_kernels", "evaluation", "hardware",
          "versions", "code_revision")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train a recipe of the speed network with each of its components replaced."""

    recipe: str = "cpu90"
    """Name of a recipe with the speed network and Muon."""
    runs: int = 5
    """Number of seeds; the first is 0."""
    only: tuple[str, ...] = ()
    """Variants, by the beginnings of their names. Default: all."""
    data: Path = Path("data")
    """Folder of the prepared data."""
    out: Path | None = None
    """Result file, or an existing folder for it. Default: a file in bench/results/ named after the benchmark."""


def main(arguments: list[str]) -> None:
    """Trains, prints a line for each run and a table, writes the JSON and prints it as the last line."""
    options = parse(Options, arguments, prog="python -m bench ablations")
    check_runs(options.runs)
    config = _recipe(options.recipe)
    names = _chosen(options.only)
    check_out(options.out)
    partial = partial_path(f"ablations-{options.recipe}", options.data)
    records = {(record["variant"], record["seed"]): record for record in load_partial(partial)}
    wanted = [(name, seed) for seed in range(options.runs) for name in names]
    for name, seed in wanted:
        if (name, seed) not in records:
            records[name, seed] = _train(replace(VARIANTS[name](config), data=options.data), seed) | {"variant": name}
            write_json(partial, {"runs": list(records.values())})
        print(f"{name}, seed {seed}: {outcome(records[name, seed])}", flush=True)
    result = summarise([records[key] for key in wanted])
    out = result_path(result, subject_of(result), options.out)
    finish(result, table_of(result), out)


def _recipe(name: str) -> Config:
    config = RECIPES[name]() if name in RECIPES else None
    if config is None or not isinstance(config.model, SpeedNetConfig) or not isinstance(config.optimizer, MuonConfig):
        raise UserError(f"recipe is {name!r}, but must be one with the speed network and Muon: cpu90, fast90, ...")
    return config


def _chosen(only: tuple[str, ...]) -> list[str]:
    for start in only:
        if not any(name.startswith(start) for name in VARIANTS):
            raise UserError(f"no variant begins with {start!r}; choose from {', '.join(map(repr, VARIANTS))}")
    return [name for name in VARIANTS if not only or name == BASELINE or name.startswith(only)]


def _train(config: Config, seed: int) -> dict[str, Any]:
    with in_own_processes(config) as train:
        return train(seed)


def summarise(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The result file: for each variant the mean accuracies, and the comparison with the baseline of the same seed.

    `difference` is that of the primary metric; `time_over_baseline` summarises the ratios of the run clocks. A result
    file whose rounds were not trained together has null there.
    """
    first, metric = records[0], primary_metric(records[0])
    baseline = {record["seed"]: record for record in records if record["variant"] == BASELINE}
    variants = {}
    for name in dict.fromkeys(record["variant"] for record in records):
        runs = [record for record in records if record["variant"] == name]
        seconds = [run["clock"]["run_s"] for run in runs]
        variants[name] = {
            "n": len(runs),
            **{key: mean_interval([run[key] for run in runs]) for key in ACCURACIES},
            "difference": mean_interval([run[metric] - baseline[run["seed"]][metric] for run in runs]),
            "run_s": summary(seconds),
            "time_over_baseline": ratios(seconds, [baseline[run["seed"]]["clock"]["run_s"] for run in runs]),
        }
    return {
        "what": "ablations",
        **{key: first[key] for key in SHARED},
        "n": len(baseline),
        "primary_metric": metric,
        "variants": variants,
        "runs": [{key: record[key] for key in KEPT} for record in records],
    }


def table_of(result: dict[str, Any]) -> Table:
    """A row for each variant."""
    header = ("component: replacement", "single view", "TTA", "difference", "run s", "x baseline")
    rows = []
    for name, one in result["variants"].items():
        difference = "" if name == BASELINE else _percent(one["difference"], sign="+")
        ratio = figure(one["time_over_baseline"]["median"]) if one["time_over_baseline"] else "-"
        accuracies = [_percent(one[key]) for key in ACCURACIES]
        rows.append([name, *accuracies, difference, figure(one["run_s"]["median"]), ratio])
    return header, rows


def _percent(spread: dict[str, Any], sign: str = "") -> str:
    half = "" if spread["ci95"] is None else f" ± {100 * spread['ci95']:.2f}"
    return f"{100 * spread['mean']:{sign}.2f}{half}"
