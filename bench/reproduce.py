"""`python -m bench reproduce`: the five published systems trained here, their figures beside what they publish.

Every run is kept in a folder of its own. Interrupted, the command goes on with what is missing: a finished run of the
same configuration and code revision is not repeated.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.measure import check_out, check_runs, result_path, table
from bench.published import FIGURES, PUBLISHED, comparison
from fastcifar.analysis.statistics import interval
from fastcifar.cli.parsing import parse
from fastcifar.config import Config
from fastcifar.config.toml import to_toml
from fastcifar.data.prepared import load_manifest
from fastcifar.errors import RunFailedError, UserError
from fastcifar.files import write_json, write_text
from fastcifar.optim.schedules import one_cycle, total_steps
from fastcifar.recipes import RECIPES, load_config
from fastcifar.runs.record import CONFIG_NAME, METRICS_NAME, RECORD_NAME, code_revision, load_record


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train the five published systems and print what they publish beside what came out."""

    systems: str = "a,b,c,d,e"
    """Which, by letter, with commas."""
    epochs: float | None = None
    """Stop after so many epochs of the published schedule; by default at its end."""
    fraction: float | None = None
    """Train for this fraction of the published epochs, the schedule squeezed into them."""
    runs: int = 1
    """How many seeds, from 0."""
    data: Path = Path("data")
    """Prepared data."""
    folder: Path = Path("runs/reproduce")
    """Folder of the runs; finished ones found there are not repeated."""
    device: str = "auto"
    """Where to train, as `python -m fastcifar.train --device` takes it."""
    out: Path | None = None
    """The result file; by default one in bench/results/ that says what it holds."""


def main(arguments: list[str]) -> None:
    """Trains, prints a table, writes the JSON after every run; the last line is the JSON without the runs."""
    options = parse(Options, arguments, prog="python -m bench reproduce")
    names = _checked(options)
    samples = load_manifest(options.data).splits["train"].samples
    runs: dict[str, list[dict[str, Any]]] = {}
    for seed in range(options.runs):  # every system once before any of them twice
        for name in names:
            config = planned(options, name, seed, samples)
            run = _finished(config) or _train(config)
            runs.setdefault(name, []).append(run)
            print(_line(name, run), flush=True)
            if any(not one["failed"] for taken in runs.values() for one in taken):
                result = summarise(runs, options)
                write_json(_target(result, options), result)
    result = summarise(runs, options)
    print(table(*comparison(result)))
    print(f"written to {_target(result, options)}")
    short = {name: {k: v for k, v in one.items() if k != "runs"} for name, one in result["systems"].items()}
    print(json.dumps({**result, "systems": short}))


def _checked(options: Options) -> list[str]:
    check_runs(options.runs)
    check_out(options.out)
    names = [f"system_{letter.strip()}" for letter in options.systems.lower().split(",")]
    if unknown := [name for name in names if name not in PUBLISHED]:
        letters = ", ".join(name.removeprefix("system_") for name in PUBLISHED)
        raise UserError(f"no system is called {unknown[0].removeprefix('system_')!r}: choose of {letters}")
    if options.epochs is not None and options.fraction is not None:
        raise UserError("--epochs and --fraction are two ways to train for less; give one of them")
    if options.fraction is not None and not 0 < options.fraction <= 1:
        raise UserError(f"fraction is {options.fraction}, but must be above 0 and at most 1")
    if options.epochs is not None and not options.epochs > 0:
        raise UserError(f"epochs is {options.epochs}, but must be above 0")
    return list(dict.fromkeys(names))


def planned(options: Options, name: str, seed: int, samples: int) -> Config:
    """The run of one system: its recipe, cut as asked."""
    recipe = RECIPES[name]()
    if options.fraction is not None:
        recipe = squeezed(recipe, options.fraction)
    elif options.epochs is not None and options.epochs < recipe.epochs:
        recipe = stopped(recipe, options.epochs, samples // recipe.batch_size)
    device: Any = options.device
    return replace(recipe, seed=seed, data=options.data, runs=options.folder, device=device)


def squeezed(config: Config, fraction: float) -> Config:
    """A whole run of `fraction` of the epochs; its schedule has the same shape."""
    schedule = replace(config.schedule, peak_epoch=config.schedule.peak_epoch * fraction)
    return replace(config, epochs=config.epochs * fraction, schedule=schedule)


def stopped(config: Config, epochs: float, steps_per_epoch: int) -> Config:
    """The first `epochs` of a run, step for step at the rates of the whole one, as a configuration of its own."""
    schedule, whole = config.schedule, total_steps(config.epochs, steps_per_epoch)
    last = total_steps(epochs, steps_per_epoch) - 1
    fraction = one_cycle(last, whole, schedule.peak_epoch / config.epochs, schedule)
    assert schedule.anneal != "cos", "the beginning of a cosine is no cosine"
    if epochs > schedule.peak_epoch or schedule.anneal == "step":
        peak_epoch = min(schedule.peak_epoch, epochs)
        return replace(config, epochs=epochs, schedule=replace(schedule, peak_epoch=peak_epoch, end=fraction))
    # before its peak the cut run only climbs: the highest rate it reaches is its peak, on its last step
    optimizer = replace(config.optimizer, lr=config.optimizer.lr * fraction)
    cut = replace(schedule, peak_epoch=epochs, start=schedule.start / fraction, end=1.0)
    return replace(config, epochs=epochs, optimizer=optimizer, schedule=cut)


def _finished(config: Config) -> dict[str, Any] | None:
    """The run of `config` that is there already, made by this code."""
    content = load_manifest(config.data).content_sha256
    for path in sorted(config.runs.glob(f"*/{RECORD_NAME}")):
        folder = path.parent
        with contextlib.suppress(UserError):  # a run of another version is none of this one
            if load_config(folder / CONFIG_NAME) == config:  # as values: its file may say 1.0 for 1
                record = load_record(folder)
                if (record["code_revision"], record["dataset_sha256"]) == (code_revision(), content):
                    return figures(folder, record)
    return None


def _train(config: Config) -> dict[str, Any]:
    """Trains in a process of its own, from where an interrupted one stopped; a run that fails is a result as well."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / CONFIG_NAME
        write_text(file, to_toml(config))
        command = [sys.executable, "-m", "fastcifar.train", "--config", str(file), "--resume", "auto"]
        code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
    if code == 1:
        return {"seed": config.seed, "failed": True, "epochs": config.epochs}
    if code:
        raise RunFailedError(f"{config.recipe} was not trained to its end; start again to go on with what is missing")
    run = _finished(config)
    if run is None:
        raise RunFailedError(f"the run of {config.recipe} was changed or removed while it went on; start again")
    return run


def figures(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """What is compared, of a finished run, and its record."""
    lines = map(json.loads, (folder / METRICS_NAME).read_text(encoding="utf-8").splitlines())
    after = {line["epoch"]: line.get("test_accuracy") for line in lines if line["kind"] == "epoch"}
    return {
        "seed": record["seed"],
        "failed": False,
        "epochs": record["epochs"],
        "test_accuracy": record["test_accuracy"],
        "train_accuracy": record["train_accuracy"],
        "epoch_1_test_accuracy": record["test_accuracy"] if record["epochs"] == 1 else after.get(1),
        "epoch_s": record["clock"]["train_s"] / record["epochs"],
        "record": record,
    }


def summarise(runs: dict[str, list[dict[str, Any]]], options: Options) -> dict[str, Any]:
    """The result file. Raises RunFailedError where no run at all was trained to its end."""
    records = [run["record"] for taken in runs.values() for run in taken if not run["failed"]]
    if not records:
        raise RunFailedError("no system could be trained; its message stands above")
    shared = ("dataset", "device", "amp", "cpu_kernels", "hardware", "versions", "code_revision")
    return {
        "what": "reproduce",
        **{key: records[0][key] for key in shared},
        "n": max(len(taken) for taken in runs.values()),
        "cut": {"epochs": options.epochs, "fraction": options.fraction},
        "clock": {"epoch_s": "the run's train clock over its epochs: evaluations are taken out"},
        "systems": {name: _summary(name, taken) for name, taken in runs.items()},
    }


def _summary(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    recipe, done = RECIPES[name](), [run for run in runs if not run["failed"]]
    ours: dict[str, Any] = {}
    for key in FIGURES:
        values = [run[key] for run in done if run[key] is not None]
        ours[key] = dict(zip(("mean", "sd", "ci95"), interval(values), strict=True)) if values else None
    return {
        "epochs": runs[0]["epochs"],
        "published_epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "failed": len(runs) - len(done),
        "published": PUBLISHED[name],
        "ours": ours,
        "runs": runs,
    }


def _line(name: str, run: dict[str, Any]) -> str:
    if run["failed"]:
        return f"{name} seed {run['seed']}: failed; its message stands above"
    return (
        f"{name} seed {run['seed']}, {run['epochs']:g} epochs: test {run['test_accuracy']:.2%}, "
        f"train {run['train_accuracy']:.2%}, {run['epoch_s']:.1f} s an epoch"
    )


def _target(result: dict[str, Any], options: Options) -> Path:
    if options.out is not None:
        return options.out
    letters = "".join(name.removeprefix("system_") for name in _checked(options))
    for letter, value in (("e", options.epochs), ("f", options.fraction)):
        letters += "" if value is None else f"-{letter}{value:g}"
    return result_path(result, letters)


if __name__ == "__main__":
    from fastcifar.cli.console import run_command

    run_command(main)
