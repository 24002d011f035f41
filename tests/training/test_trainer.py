"""Whole runs on the synthetic set: they learn, they repeat bit for bit, and the record describes them."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fastcifar.config import KERNEL_NAMES, AugmentConfig, Config
from fastcifar.data.prepared import load_manifest
from fastcifar.errors import RunFailedError, UserError
from fastcifar.evaluation.flip_tta import FlipTta
from fastcifar.loader import choice
from fastcifar.models.resnet import ResNetConfig
from fastcifar.models.speednet import SpeedNetConfig
from fastcifar.optim.sgd import SgdConfig
from fastcifar.runs.record import load_record, weights_sha256
from fastcifar.training import history
from fastcifar.training.step import TrainStep
from fastcifar.training.trainer import train


@pytest.fixture(scope="module")
def brief(tiny: Config) -> Config:
    """The shortest run with every feature: 2 epochs of 12 steps, images of 16 and 20 pixels, a stem that freezes."""
    return replace(
        tiny,
        epochs=2,
        resolution=((0.5, 16), (1.0, 20)),
        model=SpeedNetConfig(widths=(8, 8), activation="relu", stem_epochs=1),
        augment=AugmentConfig(pad=2, flip="alternating", cutout=8),
    )


@pytest.fixture(scope="module")
def brief_weights(brief: Config) -> str:
    return weights_of(brief)


def weights_of(config: Config, **changes: Any) -> str:
    return train(replace(config, **changes))[1]["weights_sha256"]


def metrics(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def assert_learned(folder: Path, record: dict[str, Any]) -> None:
    """The loss begins near that of guessing and falls far below it; accuracies are far above chance.

    Over 6 seeds, 4 kinds of arithmetic and 1 or 2 threads, the last loss was 0.92 to 0.94 and test accuracies
    0.43 to 0.75.
    """
    guessing, chance = math.log(10), 0.1
    assert metrics(folder, "step")[0]["loss"] == pytest.approx(guessing, abs=1)
    assert metrics(folder, "epoch")[-1]["loss"] < 0.8 * guessing
    for name, images in (("train_accuracy", 600), ("test_accuracy", 200), ("test_accuracy_tta", 200)):
        assert record[name] > chance + 6 * math.sqrt(chance * (1 - chance) / images), name


def test_a_run_learns(finished: Any) -> None:
    assert_learned(finished.folder, finished.record)


@pytest.mark.parametrize(("amp", "kernels"), [("float32", "winograd"), ("bfloat16", "auto"), ("auto", "auto")])
def test_other_arithmetic_learns_too(amp: str, kernels: str, tiny: Config) -> None:
    """With "auto", in what this CPU does fastest."""
    folder, record = train(replace(tiny, amp=amp, cpu_kernels=kernels))
    assert_learned(folder, record)
    assert record["amp"] in ({"float32", "bfloat16"} if amp == "auto" else {amp})
    assert record["cpu_kernels"] in (set(KERNEL_NAMES) if kernels == "auto" else {kernels})


def test_the_record_describes_the_run(finished: Any) -> None:
    record, config, manifest = finished.record, finished.config, load_manifest(finished.config.data)
    assert load_record(finished.folder) == record
    expected = {
        **{name: getattr(config, name) for name in ("recipe", "seed", "epochs", "batch_size", "amp")},
        **{name: getattr(manifest, name) for name in ("dataset", "class_names", "mean_01", "std_01")},
        **{"steps": 72, "device": "cpu", "cpu_kernels": "torch", "test_samples": 200, "resumed_at": []},
        **{"evaluation": "flip_tta", "imports": {}},
        "dataset_sha256": manifest.content_sha256,
    }
    assert {name: tuple(v) if isinstance(v := record[name], list) else v for name in expected} == {
        name: tuple(v) if isinstance(v, list) else v for name, v in expected.items()
    }
    for name in ("test_accuracy", "test_accuracy_tta"):
        assert record[name] * 200 == pytest.approx(round(record[name] * 200))  # a count of the 200 test images
    assert 0 < record["clock"]["train_s"] <= record["clock"]["run_s"] <= record["clock"]["process_s"]
    weights = load_file(finished.folder / "weights.safetensors")
    assert weights_sha256(weights) == record["weights_sha256"]
    parameters = (t.numel() for name, t in weights.items() if "running" not in name and "num_batches" not in name)
    assert record["parameters"] == sum(parameters)


def test_metrics_have_a_line_a_step_and_a_line_an_epoch(finished: Any) -> None:
    steps, epochs = metrics(finished.folder, "step"), metrics(finished.folder, "epoch")
    assert [step["step"] for step in steps] == list(range(72))
    assert [step["epoch"] for step in steps] == [step / 12 for step in range(72)]
    for group, peak in (("filters", 0.24), ("biases", 50 * 0.053), ("head", 50 * 0.67)):
        rates = [step["lr"][group] for step in steps]
        assert rates == pytest.approx([peak * (1 - step / 71) for step in range(72)])
    assert steps[7]["momentum"] == {"filters": 0.6, "biases": 0.85, "head": 0.85}
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    assert ["test_accuracy" in epoch for epoch in epochs] == [False, True, False, True, False, False]
    assert epochs[-1]["train_accuracy"] == finished.record["train_accuracy"]
    for number, epoch in enumerate(epochs):
        part = steps[12 * number : 12 * number + 12]
        for name in ("loss", "train_accuracy"):
            assert epoch[name] == pytest.approx(sum(step[name] for step in part) / 12)


def test_the_seed_alone_sets_the_weights(brief: Config, brief_weights: str) -> None:
    torch.manual_seed(77)
    assert weights_of(brief, evaluate_every=1, evaluation=FlipTta(), evaluation_batch_size=7) == brief_weights
    assert weights_of(brief, seed=1) != brief_weights


def test_a_set_too_large_for_memory_is_streamed_into_the_same_weights(
    brief: Config, brief_weights: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(choice, "free_bytes", lambda device: 1e6)
    _, record = train(brief)
    assert (record["loader"], record["weights_sha256"]) == ("stream", brief_weights)
    assert "loader stream: " in capsys.readouterr().err


def test_dropout_repeats_and_leaves_the_caller_s_random_numbers_alone(brief: Config) -> None:
    sgd, model = SgdConfig(lr=0.05, nesterov=True), ResNetConfig(width=2, dropout=0.2)
    config = replace(brief, epochs=0.5, resolution=((1.0, 16),), model=model, optimizer=sgd)
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


@pytest.mark.parametrize("stem_epochs", [0, 0.1])
def test_the_stem_s_bias_freezes(stem_epochs: float, brief: Config) -> None:
    model = SpeedNetConfig(widths=(8, 8), stem_epochs=stem_epochs)
    folder, _ = train(replace(brief, epochs=0.2, model=model))
    assert load_file(folder / "weights.safetensors")["stem.bias"].any() == (stem_epochs > 0)


def test_a_run_whose_loss_diverges_stops_without_a_record(brief: Config, tmp_path: Path) -> None:
    sgd, size = SgdConfig(lr=1e9), ((1.0, 16),)
    config = replace(brief, runs=tmp_path, model=ResNetConfig(width=2), optimizer=sgd, resolution=size)
    with pytest.raises(RunFailedError, match=r"loss is (nan|inf) at step \d+ of 24, learning rate \d"):
        train(config)
    (folder,) = tmp_path.iterdir()
    assert {path.name for path in folder.iterdir()} == {"config.toml", "metrics.jsonl"}
    losses = [line["loss"] for line in metrics(folder, "step")]
    assert losses[0] is not None
    assert losses[-1] is None


def test_a_run_at_chance_stops(brief: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "EARLIEST_CHECK", 10_000)  # the set is small
    monkeypatch.setattr(TrainStep, "__call__", lambda *_: (torch.tensor(2.3), torch.tensor(brief.batch_size // 10)))
    with pytest.raises(RunFailedError, match=r"of 312 steps .* 10\.0%"):
        train(replace(brief, epochs=26))


def test_a_batch_as_large_as_the_set_and_a_larger_one(brief: Config, tmp_path: Path) -> None:
    _, record = train(replace(brief, batch_size=600, epochs=1))
    assert record["steps"] == 1
    with pytest.raises(UserError, match=r"batch_size is 601, .* 600"):
        train(replace(brief, batch_size=601, runs=tmp_path))
    assert not list(tmp_path.iterdir())


def test_missing_data_makes_no_run(brief: Config, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        train(replace(brief, data=tmp_path / "nowhere", runs=tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()
