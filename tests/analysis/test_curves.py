"""The curves of a run: the image is written, the running mean is a mean."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fastcifar.analysis.curves import draw_curves, read_metrics, running_mean
from fastcifar.errors import UserError


@given(values=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30), window=st.integers(1, 40))
def test_running_mean(values: list[float], window: int) -> None:
    expected = [np.mean(values[max(0, end - window) : end]) for end in range(1, len(values) + 1)]
    np.testing.assert_allclose(running_mean(np.array(values), window), expected, atol=1e-9)


def test_curves_are_written(finished: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    assert draw_curves(folder) == folder / "curves.png"
    with Image.open(folder / "curves.png") as image:
        image.load()
        assert image.format == "PNG"
        assert image.size == (1650, 510)
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 50
    assert not list(folder.glob(".*"))


def test_metrics_of_steps_and_epochs(finished: Any) -> None:
    steps, epochs = read_metrics(finished.folder)
    assert len(steps) == 72
    assert len(epochs) == 6


def test_unfinished_and_empty_runs(finished: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no finished run"):
        draw_curves(tmp_path)
    shutil.copy(finished.folder / "record.json", tmp_path)
    path = tmp_path / "metrics.jsonl"
    with pytest.raises(UserError, match=r"cannot read .*metrics\.jsonl: "):
        draw_curves(tmp_path)
    path.write_text('{"kind": "st')
    with pytest.raises(UserError, match=r"cannot read .*metrics\.jsonl: "):
        draw_curves(tmp_path)
    path.write_text(json.dumps({"kind": "epoch"}) + "\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl holds no step"):
        draw_curves(tmp_path)
