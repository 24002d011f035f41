"""`python -m bench search`: faster settings of a recipe, judged on held-out training images.

One setting after the other is varied, starting from the recipe, and the best value is kept: the fastest whose mean
accuracy reaches the target plus a margin; while none does, the most accurate. The test set is never used: the last
images of the training set take its place. The candidates for a setting share a process, which a crash ends alone.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from bench.candidates import SETTINGS, changes, config_text
from bench.held_out import held_out_set
from bench.measure import Table, check_out, described, figure, finish, result_path
from bench.search_process import SearchProcess
from bench.training import Device, recipe_config
from fastcifar.cli.parsing import parse
from fastcifar.config import Config
from fastcifar.data.prepared import load_manifest
from fastcifar.errors import RunFailedError, UserError
from fastcifar.files import write_json
from fastcifar.models.speednet import SpeedNetConfig
from fastcifar.runtime.device import select_runtime

FINALISTS = 3
"""Candidates that are trained with more seeds in the time that is left."""
MOST_SEEDS = 20
SLACK = 1.05
"""How much slower than the best a candidate must be to be dropped: a single run varies by a few percent."""
Train = Callable[[Config, int], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Search for faster settings of a recipe of the speed network on held-out images."""

    recipe: str = "fast90"
    """Name of the recipe to start from."""
    seconds: float = 300.0
    """Stop after so many seconds, with what has been tried."""
    target: float = 0.9
    """Accuracy from 0 to 1 that the mean must reach."""
    margin: float = 0.002
    """Added to the target, because the best of many candidates was also lucky."""
    seeds: int = 2
    """Seeds of a candidate that is not dropped, at least 2."""
    only: tuple[str, ...] = ()
    """Settings to vary. Default: all."""
    data: Path = Path("data")
    """Folder of the prepared data; its test split is not read."""
    work: Path = Path(gettempdir())
    """Folder in which the held-out set is written."""
    out: Path | None = None
    """Result file, or an existing folder for it. Default: a file in bench/results/ named after the benchmark."""
    device: Device = "auto"
    """Device to train on."""
    quick: bool = False
    """A small network and few candidates, to check that the benchmark works."""


@dataclass
class Tried:
    """A candidate and its runs so far."""

    config: Config
    changes: str
    run_s: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    state: str = "kept"  # or dropped, or failed: ...

    @property
    def seconds(self) -> float:
        """The fastest run: noise of the machine only adds to it."""
        return min(self.run_s)

    @property
    def mean(self) -> float:
        """Mean accuracy of the runs."""
        return sum(self.accuracy) / len(self.accuracy)

    def order(self, wanted: float) -> tuple[bool, float]:
        """Sorts the best first: the fastest of those that reach `wanted`, then the most accurate of the others."""
        reaches = self.mean >= wanted
        return not reaches, self.seconds if reaches else -self.mean


class Search:
    """All that was tried, and the best of it."""

    def __init__(self, start: Config, options: Options, on_result: Callable[["Search"], None]) -> None:
        self.start, self.options, self.on_result = start, options, on_result
        self.wanted = options.target + options.margin
        self.deadline = time.monotonic() + options.seconds
        self.tried: dict[str, Tried] = {}

    @property
    def is_over(self) -> bool:
        """Whether the seconds are used up."""
        return time.monotonic() > self.deadline

    def ranked(self) -> list[Tried]:
        """The candidates with all their seeds, the best first."""
        kept = [one for one in self.tried.values() if one.state == "kept" and one.accuracy]
        return sorted(kept, key=lambda one: one.order(self.wanted))

    def run(self, new_process: Callable[[], Any]) -> None:
        """Varies one setting after the other until nothing improves; then trains more seeds of the best."""
        with new_process() as train:
            self._try(self.start, train)
        improved = True
        while improved and not self.is_over and self.ranked():
            improved = False
            for name in self.options.only or SETTINGS:
                before = self.ranked()[0]
                with new_process() as train:
                    for candidate in SETTINGS[name](before.config):
                        self._try(candidate, train)
                improved = improved or self.ranked()[0] is not before
        with new_process() as train:
            while not self.is_over and self._one_more_seed(train):
                pass

    def _try(self, config: Config, train: Train) -> None:
        """Trains a candidate with its seeds; drops it once it is slower than the best and not more accurate."""
        name = changes(self.start, config)
        if name in self.tried or (self.tried and self.is_over):
            return
        best = next(iter(self.ranked()), None)
        one = self.tried[name] = Tried(config, name)
        for seed in range(self.options.seeds):
            if not self._train(one, seed, train):
                return
            if best is not None and one.seconds > SLACK * best.seconds and one.mean <= best.mean:
                one.state = "dropped"
                break
        self._report(one)

    def _one_more_seed(self, train: Train) -> bool:
        finalists = [one for one in self.ranked()[:FINALISTS] if len(one.accuracy) < MOST_SEEDS]
        if self.options.quick or not finalists:
            return False
        one = min(finalists, key=lambda one: len(one.accuracy))
        self._train(one, len(one.accuracy), train)
        self._report(one)
        return True

    def _train(self, one: Tried, seed: int, train: Train) -> bool:
        try:
            found = train(one.config, seed)
        except RunFailedError as error:
            one.state = f"failed: {error}"
            self._report(one)
            return False
        one.run_s.append(found["run_s"])
        one.accuracy.append(found["accuracy"])
        return True

    def _report(self, one: Tried) -> None:
        figures = f"{one.mean:.2%}, run {one.seconds:.2f} s, n = {len(one.accuracy)}, " if one.accuracy else ""
        print(f"{one.changes}: {figures}{one.state}", flush=True)
        self.on_result(self)


def main(arguments: list[str]) -> None:
    """Searches, prints a line for each candidate and a table, writes the JSON and prints it as the last line."""
    options = parse(Options, arguments, prog="python -m bench search")
    config = _start(options)
    check_out(options.out)
    held_out = held_out_set(options.data, options.work)
    config = replace(config, data=held_out)
    manifest = load_manifest(held_out)
    facts = {
        "what": "search",
        "dataset": load_manifest(options.data).dataset,
        **described(select_runtime(config)),
        "n": options.seeds,
        "recipe": options.recipe,
        "target": options.target,
        "margin": options.margin,
        "held_out": manifest.splits["test"].samples,
        "trained_on": manifest.splits["train"].samples,
    }
    out = result_path(facts, options.recipe, options.out)
    search = Search(config, options, lambda so_far: write_json(out, facts | _found(so_far)))
    search.run(SearchProcess)
    if not search.ranked():
        raise RunFailedError(
            f"the recipe {options.recipe} cannot be trained: {next(iter(search.tried.values())).state}"
        )
    result = facts | _found(search)
    finish(result, table_of(result), out)


def _start(options: Options) -> Config:
    config = recipe_config(options.recipe, options.data, options.device, quick=options.quick)
    if not isinstance(config.model, SpeedNetConfig):
        raise UserError(f"recipe is {options.recipe!r}, but must be one with the speed network: fast90, fast94, ...")
    if options.seeds < 2:
        raise UserError(f"seeds is {options.seeds}, but must be at least 2")
    if unknown := set(options.only) - set(SETTINGS):
        raise UserError(f"no setting is called {', '.join(sorted(unknown))}; choose from {', '.join(SETTINGS)}")
    return replace(config, checkpoint_every="0")


def _found(search: Search) -> dict[str, Any]:
    """The candidates, the best first, then those that were dropped or failed; and the best as a TOML file."""
    ranked = search.ranked()
    others = [one for one in search.tried.values() if one not in ranked]
    tried = [{key: value for key, value in asdict(one).items() if key != "config"} for one in (*ranked, *others)]
    means = [one.mean if one.accuracy else None for one in (*ranked, *others)]
    return {
        "best": ranked[0].changes if ranked else None,
        "best_config": config_text(ranked[0].config) if ranked else None,
        "reached": bool(ranked) and ranked[0].mean >= search.wanted,
        "tried": [one | {"mean": mean} for one, mean in zip(tried, means, strict=True)],
    }


def table_of(result: dict[str, Any]) -> Table:
    """A row for each candidate, the best first."""
    rows = []
    for one in result["tried"]:
        mean = "-" if one["mean"] is None else f"{one['mean']:.2%}"
        seconds = figure(min(one["run_s"])) if one["run_s"] else "-"
        rows.append([one["changes"], seconds, mean, str(len(one["accuracy"])), one["state"][:60]])
    return ("changes of the recipe", "run s", "held-out accuracy", "n", "state"), rows
