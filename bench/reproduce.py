"""`python -m bench reproduce`: trains the five published systems and compares with their published results.

All run folders are kept. An interrupted benchmark resumes: a finished run with the same configuration and data is not
repeated, even if an earlier revision of the code trained it.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.measure import check_out, check_runs, mean_interval, result_path, short_revision, text_table
from bench.plots import place_of
from bench.published import FIGURES, PUBLISHED, comparison
from bench.reproduce_pages import build_page
from fastcifar.cli.parsing import parse
from fastcifar.config import Config
from fastcifar.config.toml import to_toml
from fastcifar.data.prepared import load_manifest
from fastcifar.errors import RunFailedError, UserError
from fastcifar.files import write_json, write_text
from fastcifar.recipes import RECIPES, load_config
from fastcifar.runs.record import CONFIG_NAME, METRICS_NAME, RECORD_NAME, code_revision, load_record
from fastcifar.schedules.one_cycle import OneCycle
from fastcifar.schedules.step_decay import StepDecay
from fastcifar.training.steps import total_steps


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train the five published systems and compare with their published results."""

    systems: str = "a,b,c,d,e"
    """Letters of the systems, separated by commas."""
    epochs: float | None = None
    """Stop after this many epochs of the published schedule. Default: at its end."""
    fraction: float | None = None
    """Train for this fraction of the published epochs, with the schedule shortened accordingly."""
    runs: int = 1
    """Number of seeds; the first is 0."""
    data: Path = Path("data")
    """Folder of the prepared data."""
    folder: Path = Path("runs/reproduce")
    """Folder for the run folders; finished runs found there are not repeated."""
    device: str = "auto"
    """Device to train on, as for `fastcifar train --device`."""
    report: bool = False
    """Also write an HTML page for each system into `--folder`. It shows images of the data set: do not commit it."""
    out: Path | None = None
    """Result file, or an existing folder for it. Default: a file in bench/results/ named after the benchmark."""


def main(arguments: list[str]) -> None:
    """Trains, writes the JSON after every run, prints a table and, as the last line, the JSON without the runs."""
    options = parse(Options, arguments, prog="python -m bench reproduce")
    names = _checked(options)
    samples = load_manifest(options.data).splits["train"].samples
    runs: dict[str, list[dict[str, Any]]] = {}
    for seed in range(options.runs):  # all systems with one seed before the next seed
        for name in names:
            config = planned(options, name, seed, samples)
            run = _finished(config) or _train(config)
            runs.setdefault(name, []).append(run)
            print(_line(name, run), flush=True)
            if any(not one["failed"] for system in runs.values() for one in system):
                result = summarise(runs, options)
                write_json(_target(result, options), result)
    result = summarise(runs, options)
    print(text_table(*comparison(result)))
    print(f"n = {result['n']}, {place_of(result)}, torch {result['versions']['torch']}")
    print(f"wrote {_target(result, options)}")
    if options.report:
        _write_pages(result, options, samples)
    short = {name: {k: v for k, v in system.items() if k != "runs"} for name, system in result["systems"].items()}
    print(json.dumps({**result, "systems": short}))


def _checked(options: Options) -> list[str]:
    check_runs(options.runs)
    check_out(options.out)
    names = [f"system_{letter.strip()}" for letter in options.systems.lower().split(",")]
    if unknown := [name for name in names if name not in PUBLISHED]:
        letters = ", ".join(name.removeprefix("system_") for name in PUBLISHED)
        raise UserError(f"unknown system {unknown[0].removeprefix('system_')!r}; choose from {letters}")
    if options.epochs is not None and options.fraction is not None:
        raise UserError("--epochs and --fraction exclude each other")
    if options.fraction is not None and not 0 < options.fraction <= 1:
        raise UserError(f"fraction is {options.fraction}, but must be above 0 and at most 1")
    if options.epochs is not None and not options.epochs > 0:
        raise UserError(f"epochs is {options.epochs}, but must be above 0")
    return list(dict.fromkeys(names))


def planned(options: Options, name: str, seed: int, samples: int) -> Config:
    """The configuration of one run: the recipe of the system, with `epochs` or `fraction` applied."""
    recipe = RECIPES[name]()
    if options.fraction is not None:
        recipe = shortened(recipe, options.fraction)
    elif options.epochs is not None and options.epochs < recipe.epochs:
        recipe = stopped(recipe, options.epochs, samples // recipe.batch_size)
    device: Any = options.device
    return replace(recipe, seed=seed, data=options.data, runs=options.folder, device=device)


def shortened(config: Config, fraction: float) -> Config:
    """A complete run with `fraction` of the epochs and a schedule of the same shape."""
    schedule: Any = config.schedule
    epoch = "drop_epoch" if isinstance(schedule, StepDecay) else "peak_epoch"
    schedule = replace(schedule, **{epoch: getattr(schedule, epoch) * fraction})
    return replace(config, epochs=config.epochs * fraction, schedule=schedule)


def stopped(config: Config, epochs: float, steps_per_epoch: int) -> Config:
    """The first `epochs` of a run as a configuration, with the learning rates of the whole run at every step."""
    schedule, total = config.schedule, total_steps(config.epochs, steps_per_epoch)
    last = total_steps(epochs, steps_per_epoch) - 1
    lr_scale = schedule.lr_scale(last, total, config.epochs)
    if isinstance(schedule, StepDecay):
        cut = replace(schedule, drop_epoch=min(schedule.drop_epoch, epochs), factor=lr_scale)
        return replace(config, epochs=epochs, schedule=cut)
    assert isinstance(schedule, OneCycle), "only the schedules of the published systems can be cut"
    assert schedule.anneal == "linear", "the beginning of a cosine is not a cosine"
    if epochs > schedule.peak_epoch:
        peak_epoch = min(schedule.peak_epoch, epochs)
        return replace(config, epochs=epochs, schedule=replace(schedule, peak_epoch=peak_epoch, end=lr_scale))
    # before the peak of the whole run, the learning rate only rises: the last step becomes the peak
    optimizer = replace(config.optimizer, lr=config.optimizer.lr * lr_scale)
    cut = replace(schedule, peak_epoch=epochs, start=schedule.start / lr_scale, end=1.0)
    return replace(config, epochs=epochs, optimizer=optimizer, schedule=cut)


def _finished(config: Config) -> dict[str, Any] | None:
    """The last finished run of `config` on the same data, if there is one."""
    content = load_manifest(config.data).content_sha256
    for path in sorted(config.runs.glob(f"*/{RECORD_NAME}"), reverse=True):
        folder = path.parent
        with contextlib.suppress(UserError):  # a run of another version may not load
            if load_config(folder / CONFIG_NAME) == config:  # by value: the file may say 1.0 for 1
                record = load_record(folder)
                if record["dataset_sha256"] == content:
                    return figures(folder, record)
    return None


def _train(config: Config) -> dict[str, Any]:
    """Trains in a new process and resumes an interrupted run; a failed run is a result as well."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / CONFIG_NAME
        write_text(file, to_toml(config))
        command = [sys.executable, "-m", "fastcifar", "train", "--config", str(file), "--resume", "auto"]
        code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
    if code == 1:
        return {"seed": config.seed, "failed": True, "epochs": config.epochs}
    if code:
        raise RunFailedError(f"the run of {config.recipe} was interrupted; run the same command again to resume it")
    run = _finished(config)
    if run is None:
        raise RunFailedError(
            f"the run of {config.recipe} was changed or deleted during training; run the same command again"
        )
    return run


def figures(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """The figures of a finished run that are compared, and its record."""
    lines = map(json.loads, (folder / METRICS_NAME).read_text(encoding="utf-8").splitlines())
    after = {line["epoch"]: line.get("test_accuracy") for line in lines if line["kind"] == "epoch"}
    return {
        "seed": record["seed"],
        "folder": folder.name,
        "failed": False,
        "epochs": record["epochs"],
        "test_accuracy": record["test_accuracy"],
        "train_accuracy": record["train_accuracy"],
        "epoch_1_test_accuracy": record["test_accuracy"] if record["epochs"] == 1 else after.get(1),
        "epoch_s": record["clock"]["train_s"] / record["epochs"],
        "record": record,
    }


def summarise(runs: dict[str, list[dict[str, Any]]], options: Options) -> dict[str, Any]:
    """The result file. Raises RunFailedError if all runs failed."""
    records = [run["record"] for system in runs.values() for run in system if not run["failed"]]
    if not records:
        raise RunFailedError("all runs failed; see the error messages above")
    shared = ("dataset", "device", "amp", "cpu_kernels", "hardware", "versions")
    revisions = {record["code_revision"] for record in records}
    return {
        "what": "reproduce",
        **{key: records[0][key] for key in shared},
        "code_revision": revisions.pop() if len(revisions) == 1 else "several",  # each run's record names its own
        "n": max(map(len, runs.values())),
        "cut": {"epochs": options.epochs, "fraction": options.fraction},
        "clock": {"epoch_s": "train clock of the run divided by its epochs, without evaluations"},
        "systems": {name: _summary(name, system) for name, system in runs.items()},
    }


def _summary(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    recipe, done = RECIPES[name](), [run for run in runs if not run["failed"]]
    ours: dict[str, Any] = {}
    for key in FIGURES:
        values = [run[key] for run in done if run[key] is not None]
        ours[key] = mean_interval(values) if values else None
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
        return f"{name} seed {run['seed']}: failed; see its error message above"
    revision = run["record"]["code_revision"]
    trained_at = "" if revision == code_revision() else f", trained at revision {short_revision(revision)}"
    return (
        f"{name} seed {run['seed']}, {run['epochs']:g} epochs: test {run['test_accuracy']:.2%}, "
        f"train {run['train_accuracy']:.2%}, {run['epoch_s']:.1f} s per epoch{trained_at}"
    )


def _write_pages(result: dict[str, Any], options: Options, samples: int) -> None:
    for name, system in result["systems"].items():
        if system["failed"] == len(system["runs"]):
            print(f"{name}: no page, because every run failed")
            continue
        first = next(run for run in system["runs"] if not run["failed"])
        config = planned(options, name, first["seed"], samples)
        target = options.folder / f"{name}{_suffix(options)}.html"
        write_text(target, build_page(result, config, samples // config.batch_size))
        print(f"wrote {target}", flush=True)


def _target(result: dict[str, Any], options: Options) -> Path:
    letters = "".join(name.removeprefix("system_") for name in _checked(options))
    return result_path(result, letters + _suffix(options), options.out)


def _suffix(options: Options) -> str:
    cuts = (("e", options.epochs), ("f", options.fraction))
    return "".join(f"-{letter}{value:g}" for letter, value in cuts if value is not None)
