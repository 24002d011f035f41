"""`fastcifar predict`: classes of image files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastcifar.analysis.prediction import predict
from fastcifar.data.prepared import read_split
from fastcifar.runs.load import load_run

Command = Callable[..., Any]


def test_images_of_the_test_set(finished: Any, small_data: Path, tmp_path: Path, command: Command) -> None:
    images, labels = (values[:40] for values in read_split(small_data, "test"))
    paths = [tmp_path / f"{i}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    done = command("predict", *paths, "--run", finished.folder)
    assert (done.code, done.err) == (0, "")
    note, *lines = done.out.splitlines()
    assert "synthetic" in note
    num_correct = 0
    expected = predict(load_run(finished.folder), list(images))
    for path, line, probabilities, label in zip(paths, lines, expected, labels, strict=True):
        best = sorted(probabilities, key=lambda name: -probabilities[name])[:3]
        assert line == f"{path}: " + ", ".join(f"{name} {probabilities[name]:.1%}" for name in best)
        num_correct += best[0] == finished.record["class_names"][label]
    assert num_correct >= 20  # chance is 4, the accuracy of the run about 32
    for top, shown in ((99, 10), (1, 1)):
        line = command("predict", paths[0], "--run", finished.folder, "--top", top).out.splitlines()[1]
        assert line.count("%") == shown


def test_probabilities(finished: Any, small_data: Path) -> None:
    image = read_split(small_data, "test")[0][0]
    upright, mirrored = predict(load_run(finished.folder), [image, np.ascontiguousarray(image[:, ::-1])])
    assert list(upright) == finished.record["class_names"]
    assert sum(upright.values()) == pytest.approx(1)
    assert mirrored == pytest.approx(upright, abs=1e-5)  # the mean of both, whichever is given


def test_mistakes(tmp_path: Path, command: Command) -> None:
    assert "no image" in command("predict").refused()
    assert "top is 0" in command("predict", "a.png", "--top", 0).refused()
    assert str(tmp_path / "a.png") in command("predict", tmp_path / "a.png").refused()
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    assert str(tmp_path) in command("predict", tmp_path / "a.png", "--runs", tmp_path).refused()
