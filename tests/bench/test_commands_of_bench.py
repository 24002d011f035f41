"""The measurements on a small set, quick: what they print and write; no time is looked at."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import epochs, kernels, layers, loaders, overhead
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
    assert tuple(result["contestants"]) == chosen
    for one in result["contestants"].values():
        assert one["images"] == 100
        assert set(one["images_per_s"]) == SUMMARY
        rate = one["images"] / one["epoch_s"]["median"]
        assert one["images_per_s"]["median"] == pytest.approx(rate)
        ours = result["contestants"]["resident"]["images_per_s"]["median"]
        assert one["times_ours"]["median"] == pytest.approx(rate / ours)
    assert result["contestants"][result["contestants"]["resident"]["torchvision"]]["times_torchvision"]["median"] == 1
    assert result["contestants"]["torchvision-pil-1"]["workers_mib"] > 0


def test_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(layers, "keep_freed_memory", lambda: None)  # it is for good
    small = replace(RECIPES["smoke"](), batch_size=8, resolution=((0.5, 16), (1.0, 20)))
    monkeypatch.setitem(RECIPES, "smoke", lambda: small)
    layers.main(["--recipe", "smoke", "--quick", "--threads", "1", "--out", str(tmp_path / "x.json")])
    printed = capsys.readouterr().out
    result = json.loads(printed.splitlines()[-1])
    assert result == json.loads((tmp_path / "x.json").read_text())
    assert (result["what"], result["recipe"], result["n"], result["batch_size"]) == ("layers", "smoke", 1, 8)
    assert list(result["steps"]) == ["16", "20"]
    for kinds in result["steps"].values():
        assert list(kinds)[:2] == ["torch", "winograd"]
        assert all(set(one["step_s"]) == set(one["torch_over_this"]) == SUMMARY for one in kinds.values())
        assert kinds["torch"]["torch_over_this"]["median"] == 1
    assert "20 px, torch's " in printed
    with pytest.raises(UserError, match=r"^recipe is 'other', but must be one of resnet24, "):
        layers.main(["--recipe", "other"])


@pytest.mark.parametrize("kind", ["numpy", "torchvision-pil", "torchvision-v2", "stream"])
@pytest.mark.parametrize("augment", [True, False])
def test_peers_deliver_the_same_kind_of_images(small_data: Path, kind: str, augment: bool):
    if kind == "numpy" and not augment:
        pytest.skip("it only augments")
    setting = Setting(data=small_data, augment=augment, batch_size=50, device="cpu", threads=1, num_images=120)
    feed = build_feed(kind, setting)
    assert feed.num_images == (100 if augment else 120)
    batches = list(feed.epoch(0))
    whole = 2 if augment else 3
    assert len(batches) == whole
    assert sum(len(labels) for _, labels in batches) == feed.num_images
    images, labels = batches[0]
    assert (tuple(images.shape), str(images.dtype), str(labels.dtype)) == (
        (50, 3, 32, 32),
        "torch.float32",
        "torch.int64",
    )
    assert abs(float(images.mean())) < 0.5  # normalised
    if augment:
        holes = (images == 0).all(1).sum((1, 2))  # the mean colour, within the image for torchvision
        assert (holes >= (16 if kind in ("numpy", "stream") else 64)).all()


def test_kernels(small_data: Path, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr(kernels, "keep_freed_memory", lambda: None)  # it is for good
    arguments = ("--data", small_data, "--batch-sizes", 64, 128, "--dtypes", "float32", "bfloat16")
    result = run(kernels.main, capsys, tmp_path / "x.json", *arguments)
    assert [(case["output"], case["batch"], case["dtype"]) for case in result["cases"]] == [
        ("fresh", 64, "float32"), ("fresh", 64, "bfloat16"), ("kept", 64, "float32"), ("kept", 64, "bfloat16"),
    ]  # fmt: skip
    for case in result["cases"]:
        assert case["bytes_per_image"] == 3072 + 16 + 3072 * (4 if case["dtype"] == "float32" else 2)
        moved = 64 * case["bytes_per_image"] / case["call_s"]["median"] / 1e9
        assert case["gb_per_s"]["median"] == pytest.approx(moved)
        fraction = case["gb_per_s"]["median"] / case["copy_gb_per_s"]["median"]
        assert case["fraction_of_copy"]["median"] == pytest.approx(fraction)


def test_epochs(small_data: Path, tmp_path: Path, capsys):
    chosen = ("plain PyTorch", "+ resident")
    arguments = ("--data", small_data, "--batch-size", 50, "--width", 4, "--only", *chosen)
    result = run(epochs.main, capsys, tmp_path / "x.json", *arguments)
    assert tuple(result["stages"]) == chosen
    for one in result["stages"].values():
        parts = sum(one[part]["median"] for part in epochs.PARTS)
        assert one["epoch_s"]["median"] == pytest.approx(parts)
        assert (one["images"], one["test_images"]) == (100, 50)
    first, last = result["stages"].values()
    assert last["times_first"]["median"] == pytest.approx(first["epoch_s"]["median"] / last["epoch_s"]["median"])
    assert first["times_first"]["median"] == first["times_before"]["median"] == 1


@pytest.mark.slow
def test_ffcvs_own_operations_deliver_too(small_data: Path, tmp_path: Path, capsys):
    arguments = ("--data", small_data, "--batch-size", 50, "--only", "ffcv", "ffcv-lookup")
    result = run(loaders.main, capsys, tmp_path / "x.json", *arguments)
    assert [one["images"] for one in result["contestants"].values()] == [100, 100]


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (loaders.main, ("--only", "tensorflow"), "no loader is called tensorflow"),
        (loaders.main, ("--batch-size", "601"), "batch_size is 601, but must be 1 to 600"),
        (kernels.main, ("--batch-sizes", "0"), "must be at least 1"),
        (epochs.main, ("--fraction", "0"), "fraction is 0.0, but must be above 0"),
        (epochs.main, ("--only", "+ luck"), r"no stage is called \+ luck"),
    ],
)
def test_mistakes_are_said_before_anything_is_measured(small_data: Path, main: Any, arguments: Any, message: str):
    with pytest.raises(UserError, match=message):
        main(["--data", str(small_data), "--out", str(small_data.parent / "never.json"), *arguments])


def test_a_data_loader_gets_doubling_numbers_of_processes():
    assert loaders.worker_counts(2) == [0, 1, 2]
    assert loaders.worker_counts(6) == [0, 1, 2, 4, 6]


def test_overhead(small_data: Path, tmp_path: Path, capsys):
    result = run(overhead.main, capsys, tmp_path / "x.json", "--data", small_data, "--recipe", "smoke")
    assert list(result["steps"]) == ["16", "32"]
    for one in result["steps"].values():
        assert one["own_fraction"] == pytest.approx(result["own_us"]["median"] / 1e6 / one["step_s"]["median"])
