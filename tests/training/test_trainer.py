"""Whole runs on the synthetic set: they learn, they repeat bit for bit, and their record says what happened."""

import json
import math
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fastcifar.config import AugmentConfig, Config, ResNetConfig, ScheduleConfig, SgdConfig, SpeedNetConfig
from fastcifar.data.prepared import load_manifest
from fastcifar.errors import RunFailedError, UserError
from fastcifar.loader import choice
from fastcifar.runs.record import load_record, weights_sha256
from fastcifar.training import history
from fastcifar.training.trainer import train


@pytest.fixture(scope="session")
def brief(tiny: Config) -> Config:
    """The shortest run that goes through every part: 2 epochs of 12 steps, images of 16 and 20 pixels."""
    return replace(
        tiny,
        epochs=2,
        resolution=((0.5, 16), (1.0, 20)),
        model=SpeedNetConfig(widths=(8, 8), activation="relu", stem_epochs=1),
        augment=AugmentConfig(pad=2, flip="alternating", cutout=8),
    )


@pytest.fixture(scope="session")
def brief_weights(brief: Config) -> str:
    return weights_of(brief)


def weights_of(config: Config, **changes: Any) -> str:
    return train(replace(config, **changes))[1]["weights_sha256"]


def metrics(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_a_run_learns(finished: Any) -> None:
    assert finished.record["test_accuracy"] > 0.5  # chance is 0.1, a usual run 0.8
    assert finished.record["test_accuracy_tta"] > 0.5
    assert finished.record["train_accuracy"] > 0.8


def test_the_record_says_what_made_the_result(finished: Any) -> None:
    record, config = finished.record, finished.config
    manifest = load_manifest(config.data)
    assert load_record(finished.folder) == record
    facts = {name: record[name] for name in ("recipe", "seed", "epochs", "steps", "batch_size", "dataset", "device")}
    assert facts == {
        "recipe": "smoke",
        "seed": 0,
        "epochs": 6,
        "steps": 72,
        "batch_size": 50,
        "dataset": "synthetic",
        "device": "cpu",
    }
    assert (record["amp"], record["evaluation"], record["test_samples"]) == ("float32", "flip_tta", 200)
    assert record["dataset_sha256"] == manifest.content_sha256
    assert record["class_names"] == list(manifest.class_names)
    assert (record["mean_01"], record["std_01"]) == (list(manifest.mean_01), list(manifest.std_01))
    assert set(record["versions"]) >= {"fastcifar", "python", "torch", "torchvision", "numpy", "numba", "ffcv"}
    assert set(record["hardware"]) >= {"cpu", "cores", "threads"}
    assert "code_revision" in record
    for name in ("test_accuracy", "test_accuracy_tta"):
        assert 0 <= record[name] <= 1
        assert record[name] * 200 == pytest.approx(round(record[name] * 200))  # a count of 200 images


def test_the_clocks_contain_one_another(finished: Any) -> None:
    clock = finished.record["clock"]
    assert 0 < clock["train_s"] <= clock["run_s"] <= clock["process_s"]


def test_the_folder_holds_config_metrics_weights_and_record(finished: Any) -> None:
    names = {path.name for path in finished.folder.iterdir()}
    assert names >= {"config.toml", "metrics.jsonl", "weights.safetensors", "record.json"}
    state = load_file(finished.folder / "weights.safetensors")
    assert weights_sha256(state) == finished.record["weights_sha256"]
    learned = {name: t for name, t in state.items() if "running" not in name and "num_batches" not in name}
    assert sum(t.numel() for t in learned.values()) == finished.record["parameters"]
    config = tomllib.loads((finished.folder / "config.toml").read_text())
    assert (config["seed"], config["model"]["widths"]) == (0, [16, 32, 32])


def test_metrics_hold_every_step_and_epoch(finished: Any) -> None:
    steps, epochs = metrics(finished.folder, "step"), metrics(finished.folder, "epoch")
    assert [step["step"] for step in steps] == list(range(72))
    assert [step["epoch"] for step in steps] == pytest.approx([i / 12 for i in range(72)])
    assert [step["lr"] for step in steps] == pytest.approx([0.24 * (1 - i / 71) for i in range(72)])
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    assert [epoch["epoch"] for epoch in epochs if "test_accuracy" in epoch] == [2, 4]  # the last is in the record
    # with a smoothing of 0.2, no loss is below that of giving the target's own distribution
    assert all(0.8 < epoch["test_loss"] < 3 for epoch in epochs if "test_accuracy" in epoch)
    for number, epoch in enumerate(epochs):
        own = steps[12 * number : 12 * number + 12]
        for name in ("loss", "train_accuracy"):
            assert epoch[name] == pytest.approx(sum(step[name] for step in own) / 12)
    assert finished.record["train_accuracy"] == epochs[-1]["train_accuracy"]


def test_same_seed_same_weights_another_seed_others(brief: Config, brief_weights: str) -> None:
    assert weights_of(brief) == brief_weights
    assert weights_of(brief, seed=1) != brief_weights


def test_stream_and_resident_train_the_same_weights(brief: Config, brief_weights: str) -> None:
    assert weights_of(brief, loader="stream") == brief_weights


def test_a_set_too_large_for_memory_is_streamed_and_a_line_says_so(
    brief: Config, brief_weights: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, record = train(brief)
    assert record["loader"] == "resident"
    assert "loader" not in capsys.readouterr().err
    monkeypatch.setattr(choice, "free_bytes", lambda device: 1e6)
    _, record = train(brief)
    assert (record["loader"], record["weights_sha256"]) == ("stream", brief_weights)
    assert "loader stream: the data set of 2 MB does not fit in half of the 1 MB" in capsys.readouterr().err


def test_what_is_only_looked_at_does_not_change_the_weights(brief: Config, brief_weights: str) -> None:
    torch.manual_seed(77)
    assert weights_of(brief, evaluate_every=1, evaluation="flip_tta", evaluation_batch_size=7) == brief_weights


def test_dropout_repeats_and_leaves_the_caller_s_random_numbers_alone(brief: Config) -> None:
    config = replace(
        brief,
        model=ResNetConfig(width=2, dropout=0.2),
        optimizer=SgdConfig(lr=0.05, nesterov=True),
        resolution=((1.0, 16),),
    )
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = weights_of(config)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert weights_of(config) == first
    assert weights_of(config, model=ResNetConfig(width=2)) != first


@pytest.mark.parametrize(("epochs", "steps", "ends"), [(1.5, 18, [1, 2]), (0.01, 1, [1]), (1.0, 12, [1])])
def test_fractions_of_an_epoch(brief: Config, epochs: float, steps: int, ends: list[int]) -> None:
    folder, record = train(replace(brief, epochs=epochs, evaluate_every=1))
    assert (record["epochs"], record["steps"]) == (epochs, steps)
    assert len(metrics(folder, "step")) == steps
    assert [line["epoch"] for line in metrics(folder, "epoch")] == ends
    assert ["test_accuracy" in line for line in metrics(folder, "epoch")] == [True] * (len(ends) - 1) + [False]


def test_the_stem_stops_learning(brief: Config) -> None:
    def stem_bias(**changes: Any) -> torch.Tensor:
        folder, _ = train(replace(brief, **changes))
        return load_file(folder / "weights.safetensors")["stem.bias"]

    never = SpeedNetConfig(widths=(8, 8), stem_epochs=0)
    assert torch.equal(stem_bias(model=never), torch.zeros(24))
    assert stem_bias().abs().max() > 0


@pytest.mark.parametrize("amp", ["bfloat16", "float16"])
def test_16_bits_train_too(brief: Config, amp: str) -> None:
    _, record = train(replace(brief, epochs=0.5, amp=amp))
    assert record["amp"] == amp


def hopeless(config: Config) -> Config:
    return replace(
        config,
        model=ResNetConfig(width=2),
        optimizer=SgdConfig(lr=1e9),
        schedule=ScheduleConfig(peak_epoch=0, start=1, end=1),
        resolution=((1.0, 16),),
    )


def test_a_run_that_reads_nan_stops_without_a_record(brief: Config, tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match=r"the loss is (nan|inf) at step \d+ of 24, learning rate 1e\+09; lower"):
        train(replace(hopeless(brief), runs=tmp_path))
    (folder,) = tmp_path.iterdir()
    assert {path.name for path in folder.iterdir()} == {"config.toml", "metrics.jsonl"}
    losses = [line["loss"] for line in metrics(folder, "step")]
    assert losses[0] is not None
    assert losses[-1] is None


def test_a_run_at_chance_stops(brief: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "EARLIEST", 10_000)  # the set is small
    config = replace(
        hopeless(brief),
        optimizer=SgdConfig(lr=1e-9, momentum=0),
        epochs=26,
        augment=AugmentConfig(pad=0, flip="none", cutout=0),
    )
    with pytest.raises(RunFailedError, match=r"after \d+ of 312 steps the training accuracy is .*%, no better than"):
        train(config)


def test_a_batch_larger_than_the_set(brief: Config, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        train(replace(brief, batch_size=601, runs=tmp_path))
    assert str(caught.value) == "batch_size is 601, but the training set has 600 images"
    assert not list(tmp_path.iterdir())


def test_a_batch_as_large_as_the_set(brief: Config) -> None:
    _, record = train(replace(brief, batch_size=600, epochs=1))
    assert record["steps"] == 1


def test_missing_data_makes_no_run(brief: Config, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no prepared data in"):
        train(replace(brief, data=tmp_path / "nowhere", runs=tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_a_loss_starts_near_that_of_guessing(finished: Any) -> None:
    assert metrics(finished.folder, "step")[0]["loss"] == pytest.approx(math.log(10), abs=1.0)
