"""The benchmarks with `--quick` on a small set: output and result files, but no times."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import epochs, kernels, layers, learning_rates, loaders, overhead
from bench.measure import summary
from bench.peers import Setting, build_feed
from fastcifar.errors import UserError
from fastcifar.recipes import RECIPES

SUMMARY = set(summary([1.0]))


def run(main: Any, capsys: pytest.CaptureFixture[str], out: Path, *arguments: object) -> dict[str, Any]:
    main([*map(str, arguments), "--quick", "--device", "cpu", "--threads", "1", "--out", str(out)])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result == json.loads(out.read_text())
    assert result["what"] == main.__module__.removeprefix("bench.")
    assert {"clock", "versions", "code_revision", "dataset"} <= set(result)
    assert (result["n"], result["device"], result["hardware"]["threads"]) == (1, "cpu", 1)
    return result


def test_loaders(small_data: Path, tmp_path: Path, capsys):
    chosen = ("resident", "torchvision-v2-0", "torchvision-pil-1")
    out = tmp_path / "new" / "x.json"
    result = run(loaders.main, capsys, out, "--data", small_data, "--batch-size", 50, "--only", *chosen)
    found = result["candidates"]
    assert tuple(found) == chosen
    for one in found.values():
        assert one["images"] == 100
        assert set(one["images_per_s"]) == SUMMARY
        rate = one["images"] / one["epoch_s"]["median"]
        assert one["images_per_s"]["median"] == pytest.approx(rate)
        ours = found["resident"]["images_per_s"]["median"]
        assert one["speedup_over_resident"]["median"] == pytest.approx(rate / ours)
    assert found[found["resident"]["fastest_torchvision"]]["speedup_over_torchvision"]["median"] == 1
    assert found["torchvision-pil-1"]["workers_mib"] > 0
    assert loaders.worker_counts(6) == [0, 1, 2, 4, 6]


def test_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(layers, "keep_freed_memory", lambda: None)  # it cannot be undone
    small = replace(RECIPES["smoke"](), batch_size=8, resolution=((1.0, 16),))
    monkeypatch.setitem(RECIPES, "smoke", lambda: small)
    layers.main(["--recipe", "smoke", "--quick", "--threads", "1", "--out", str(tmp_path / "x.json")])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result == json.loads((tmp_path / "x.json").read_text())
    assert (result["what"], result["recipe"], result["n"], result["batch_size"]) == ("layers", "smoke", 1, 8)
    (kinds,) = result["steps"].values()
    assert list(kinds)[:3] == ["torch", "torch-bf16", "winograd"]
    assert all(set(one["step_s"]) == set(one["speedup_over_torch"]) == SUMMARY for one in kinds.values())
    assert kinds["torch"]["speedup_over_torch"]["median"] == 1
    with pytest.raises(UserError, match="recipe is 'other'"):
        layers.main(["--recipe", "other"])


def test_learning_rates_resume(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(learning_rates, "keep_freed_memory", lambda: None)  # it cannot be undone
    out = tmp_path / "x.json"
    arguments = ["--recipes", "smoke", "--runs", "1", "--quick", "--device", "cpu", "--data", str(small_data)]
    learning_rates.main([*arguments, "--work", str(tmp_path), "--out", str(out)])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result == json.loads(out.read_text())
    measured = result["recipes"]["smoke"]
    found = measured["tests"]["0"]["max"]
    rates = [one["lr"] for one in measured["trainings"].values()]
    assert rates == pytest.approx([found, 0.3 * found, 3 * found, 10 * found, 0.24], rel=0.01)
    assert set(measured["sweep"]["rules"]) == set(learning_rates.RULES)
    del measured["trainings"]["recipe"]
    out.write_text(json.dumps(result))
    monkeypatch.setattr(learning_rates, "_train", lambda config: {"lr": config.optimizer.lr, "test_accuracy": 0.5})
    learning_rates.main([*arguments, "--work", str(tmp_path), "--out", str(out)])
    again = json.loads(out.read_text())["recipes"]["smoke"]
    assert again["trainings"].pop("recipe")["test_accuracy"] == 0.5  # only what was missing
    assert again == measured


def test_published_rules_on_a_known_curve():
    rates = np.geomspace(1e-3, 10, 9)
    losses = np.array([2.3, 2.3, 2.2, 1.8, 1.75, 1.6, 1.7, 2.5, 4.0])
    found = {name.split()[0]: rule(rates, losses) for name, rule in learning_rates.RULES.items()}
    assert found["minimum"] == pytest.approx(rates[5] / 10)
    assert found["steepest"] == rates[2]  # the central difference at 2.2, between 2.3 and 1.8
    assert found["valley"] == rates[3]


@pytest.mark.parametrize(
    ("kind", "augment"),
    [("numpy", True), ("torchvision-pil", True), ("torchvision-v2", True), ("stream", True), ("stream", False)],
)
def test_all_loaders_deliver_the_same_kind_of_images(small_data: Path, kind: str, augment: bool):
    setting = Setting(data=small_data, augment=augment, batch_size=50, device="cpu", threads=1, num_images=120)
    feed = build_feed(kind, setting)
    assert feed.num_images == (100 if augment else 120)
    batches = list(feed.epoch(0))
    assert sum(len(labels) for _, labels in batches) == feed.num_images
    images, labels = batches[0]
    assert (tuple(images.shape), str(images.dtype)) == ((50, 3, 32, 32), "torch.float32")
    assert str(labels.dtype) == "torch.int64"
    assert abs(float(images.mean())) < 0.5  # normalised
    if augment:
        holes = (images == 0).all(1).sum((1, 2))  # of the mean colour; torchvision's lie inside of the image
        assert (holes >= (16 if kind in ("numpy", "stream") else 64)).all()


def test_kernels(small_data: Path, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr(kernels, "keep_freed_memory", lambda: None)  # it cannot be undone
    arguments = ("--data", small_data, "--batch-sizes", 64, 128, "--dtypes", "float32", "bfloat16")
    result = run(kernels.main, capsys, tmp_path / "x.json", *arguments)
    assert [(case["output"], case["batch"], case["dtype"]) for case in result["cases"]] == [
        (output, 64, dtype) for output in ("fresh", "kept", "tensors") for dtype in ("float32", "bfloat16")
    ]
    large = {**result["cases"][0], "batch": kernels.LARGE, "fraction_of_copy": summary([0.5])}
    assert "50% to 50%" in kernels.large_batches({"cases": [*result["cases"], large]})
    for case in result["cases"]:
        assert case["bytes_per_image"] == 3072 + 16 + 3072 * (4 if case["dtype"] == "float32" else 2)
        moved = 64 * case["bytes_per_image"] / case["call_s"]["median"] / 1e9
        assert case["gb_per_s"]["median"] == pytest.approx(moved)
        fraction = case["gb_per_s"]["median"] / case["copy_gb_per_s"]["median"]
        assert case["fraction_of_copy"]["median"] == pytest.approx(fraction)


def test_epochs(small_data: Path, tmp_path: Path, capsys):
    chosen = ("+ AMP", "+ resident")
    arguments = ("--data", small_data, "--batch-size", 50, "--width", 4, "--only", *chosen)
    result = run(epochs.main, capsys, tmp_path / "x.json", *arguments)
    assert tuple(result["stages"]) == chosen
    for one in result["stages"].values():
        parts = sum(one[part]["median"] for part in epochs.PARTS)
        assert one["epoch_s"]["median"] == pytest.approx(parts)
        assert (one["images"], one["test_images"]) == (100, 50)
    first, last = result["stages"].values()
    speedup = first["epoch_s"]["median"] / last["epoch_s"]["median"]
    assert last["speedup_over_first"]["median"] == last["speedup_over_previous"]["median"] == pytest.approx(speedup)
    assert first["speedup_over_first"]["median"] == first["speedup_over_previous"]["median"] == 1


def test_overhead(small_data: Path, tmp_path: Path, capsys):
    result = run(overhead.main, capsys, tmp_path / "x.json", "--data", small_data, "--recipe", "smoke")
    assert list(result["steps"]) == ["16", "32"]
    for one in result["steps"].values():
        seconds = result["overhead_us"]["median"] / 1e6
        assert one["overhead_fraction"] == pytest.approx(seconds / one["step_s"]["median"])


@pytest.mark.slow
def test_ffcvs_own_operations(small_data: Path, tmp_path: Path, capsys):
    arguments = ("--data", small_data, "--batch-size", 50, "--only", "ffcv", "ffcv-lookup")
    result = run(loaders.main, capsys, tmp_path / "x.json", *arguments)
    assert [one["images"] for one in result["candidates"].values()] == [100, 100]


@pytest.mark.parametrize(
    ("main", "arguments", "shown"),
    [
        (loaders.main, ("--only", "tensorflow"), "tensorflow"),
        (loaders.main, ("--batch-size", "601"), "batch_size is 601"),
        (kernels.main, ("--batch-sizes", "0"), "batch_sizes are .*0"),
        (epochs.main, ("--fraction", "0"), "fraction is 0.0"),
        (epochs.main, ("--only", "+ luck"), r"\+ luck"),
        (overhead.main, ("--recipe", "nix"), "'nix'"),
    ],
)
def test_mistakes_are_found_before_anything_is_measured(small_data: Path, main: Any, arguments: Any, shown: str):
    with pytest.raises(UserError, match=shown):
        main(["--data", str(small_data), "--out", str(small_data.parent / "never.json"), *arguments])
