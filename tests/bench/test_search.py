"""The search for faster settings: what it tries, drops and prefers, and that it never sees the test set."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import search, search_process, training
from bench.candidates import SETTINGS, changes, config_text
from bench.held_out import held_out_set
from bench.report import SECTIONS
from bench.search import Options, Search, main
from bench.search_process import SearchProcess
from bench.training import quick_config
from fastcifar.config import Config
from fastcifar.data.prepared import read_split, write_set
from fastcifar.data.raw_set import SPLITS
from fastcifar.data.sources.synthetic import synthetic_set
from fastcifar.errors import RunFailedError, UserError
from fastcifar.recipes import RECIPES, load_config

Outcome = Callable[[Config, int], tuple[float, float]]


def searched(outcome: Outcome, **options: Any) -> tuple[Search, list[tuple[str, int]]]:
    """A search whose trainings take no time and give `outcome`: seconds and accuracy; and what was trained."""
    trained: list[tuple[str, int]] = []
    start = RECIPES["fast90"]()

    @contextmanager
    def process() -> Iterator[Any]:
        def train(config: Config, seed: int) -> dict[str, Any]:
            trained.append((changes(start, config), seed))
            seconds, accuracy = outcome(config, seed)
            return {"run_s": seconds, "accuracy": accuracy}

        yield train

    found = Search(start, Options(**{"quick": True, "margin": 0.0, **options}), lambda _: None)
    found.run(process)
    return found, trained


def test_the_fastest_that_reaches_the_target_is_the_best():
    def outcome(config: Config, seed: int) -> tuple[float, float]:
        return config.epochs, 0.80 + 0.03 * config.epochs + 0.001 * seed  # 90% needs 3.33 epochs

    found, _ = searched(outcome, only=("epochs",))
    reaching = [one.config.epochs for one in found.tried.values() if one.state == "kept" and one.mean >= 0.9]
    assert found.ranked()[0].config.epochs == min(reaching)
    assert 3.3 < found.ranked()[0].config.epochs < 4
    assert found.ranked()[-1].mean == min(one.mean for one in found.ranked())


def test_while_nothing_reaches_the_target_the_most_accurate_is_the_best():
    found, _ = searched(lambda config, seed: (config.epochs, min(0.8, 0.1 * config.epochs)), only=("epochs",))
    assert found.ranked()[0].mean == pytest.approx(0.8)


def test_a_candidate_that_is_slower_and_not_more_accurate_is_dropped_after_one_seed():
    found, trained = searched(lambda config, seed: (1000 / min(config.batch_size, 2000), 0.91), only=("batch_size",))
    assert found.tried["batch_size 500"].state == "dropped"
    assert [seed for name, seed in trained if name == "batch_size 500"] == [0]
    assert [seed for name, seed in trained if name == "batch_size 2000"] == [0, 1]
    assert len(trained) == len(set(trained))  # nothing twice


def test_a_candidate_that_fails_is_noted_and_the_search_goes_on():
    def outcome(config: Config, seed: int) -> tuple[float, float]:
        if config.epochs < 5:
            raise RunFailedError("the loss is nan")
        return config.epochs, 0.95

    found, _ = searched(outcome, only=("epochs", "lr"))
    assert found.tried["epochs 4"].state == "failed: the loss is nan"
    assert found.ranked()[0].changes == "the recipe"
    result = search._found(found)
    assert (result["best"], result["reached"]) == ("the recipe", True)
    assert {one["changes"] for one in result["tried"]} == set(found.tried)
    json.dumps(result, allow_nan=False)
    header, rows = search.table_of(result)
    assert all(len(row) == len(header) for row in rows)


def test_when_the_seconds_are_over_the_recipe_alone_is_tried():
    found, trained = searched(lambda config, seed: (1.0, 0.95), seconds=0)
    assert trained == [("the recipe", 0), ("the recipe", 1)]
    assert len(found.tried) == 1


def test_the_time_that_is_left_goes_to_more_seeds_of_the_best():
    def outcome(config: Config, seed: int) -> tuple[float, float]:
        time.sleep(0.001)
        return config.epochs, 0.95

    found, _ = searched(outcome, only=("lr",), quick=False, seconds=60)
    assert [len(one.accuracy) for one in found.ranked()[: search.FINALISTS]] == [search.MOST_SEEDS] * search.FINALISTS


@pytest.mark.parametrize("recipe", ["fast90", "fast94", "cpu90"])
def test_every_candidate_is_valid_differs_in_its_setting_and_can_be_written(recipe: str, tmp_path: Path):
    start = RECIPES[recipe]()
    for neighbours in SETTINGS.values():
        found = list(neighbours(start))
        assert len({changes(start, one) for one in found}) == len(found) >= 2
        for one in found:
            (tmp_path / "x.toml").write_text(config_text(one))
            assert load_config(tmp_path / "x.toml") == one


def test_the_held_out_set_is_a_part_of_the_training_set_with_all_classes(tmp_path: Path):
    raw = synthetic_set(train=600, test=200, seed=3)
    order = np.argsort(raw.train.labels, kind="stable")  # as from a folder for each class
    by_class = replace(raw.train, images_nhwc=raw.train.images_nhwc[order], labels=raw.train.labels[order])
    write_set(replace(raw, train=by_class), tmp_path / "sorted")
    folder = held_out_set(tmp_path / "sorted", tmp_path)
    found = {split: read_split(folder, split) for split in SPLITS}
    assert [len(found[split][1]) for split in SPLITS] == [480, 120]
    assert set(found["test"][1].tolist()) == set(range(10))
    together = np.concatenate([found[split][0] for split in SPLITS])
    assert sorted(map(bytes, together)) == sorted(map(bytes, raw.train.images_nhwc))
    written = (folder / "train.beton").stat().st_mtime_ns
    assert held_out_set(tmp_path / "sorted", tmp_path) == folder
    assert (folder / "train.beton").stat().st_mtime_ns == written
    with pytest.raises(UserError, match=str(folder)):
        held_out_set(folder, tmp_path)


def test_a_process_that_crashes_is_replaced(tiny: Config):
    config = replace(quick_config(tiny), data=tiny.data, epochs=0.5)
    with SearchProcess() as train:
        train._pool.submit(os._exit, 3)
        with pytest.raises(RunFailedError):
            train(config, 0)
        first = train(config, 0)
        assert first["run_s"] > 0
        assert train(config, 0)["accuracy"] == first["accuracy"]
        with pytest.raises(RunFailedError, match="batch_size is 5000"):
            train(replace(config, batch_size=5000), 0)


def test_preparations_are_kept_until_another_configuration_comes(tiny: Config, monkeypatch: pytest.MonkeyPatch):
    opened: list[Config] = []

    @contextmanager
    def fake(config: Config) -> Iterator[Any]:
        opened.append(config)
        yield lambda seed: {"clock": {"run_s": 1.0}, "evaluation": "single_view", "test_accuracy": seed / 10}

    monkeypatch.setattr(search_process, "in_one_process", fake)
    monkeypatch.setattr(search_process, "_current", [])
    other = replace(tiny, epochs=2.0)
    results = [search_process._train(config, seed) for config, seed in ((tiny, 1), (tiny, 2), (other, 1), (other, 2))]
    assert [one["accuracy"] for one in results] == [0.1, 0.2, 0.1, 0.2]
    assert opened == [tiny, other]


@pytest.mark.slow
def test_a_small_search(small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch):
    monkeypatch.setattr(training, "keep_freed_memory", lambda: None)  # it cannot be undone
    arguments = ["--data", str(small_data), "--work", str(tmp_path), "--out", str(tmp_path), "--device", "cpu"]
    main([*arguments, "--quick", "--seconds", "1", "--only", "epochs"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert json.loads((tmp_path / "search-fast90-cpu-n2.json").read_text()) == result
    assert (result["trained_on"], result["held_out"], result["tried"][-1]["changes"]) == (480, 120, "the recipe")
    section = SECTIONS["search"]
    assert section.table_of(result)[1]
    assert "120" in section.note_of(result)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--recipe", "resnet24"], "resnet24"),
        (["--seeds", "1"], "seeds is 1"),
        (["--only", "luck"], "luck"),
    ],
)
def test_mistakes(arguments: list[str], shown: str):
    with pytest.raises(UserError, match=shown):
        main(arguments)
