"""Training curves: the running mean, the PNG, and damaged metrics."""

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
    steps, epochs = read_metrics(finished.folder)
    assert (len(steps), len(epochs)) == (72, 6)
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    assert draw_curves(folder) == folder / "curves.png"
    with Image.open(folder / "curves.png") as image:
        assert (image.format, image.size) == ("PNG", (1650, 660))
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 50
    assert not list(folder.glob(".*"))


def test_unfinished_and_damaged_runs(finished: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"record\.json"):
        draw_curves(tmp_path)
    shutil.copy(finished.folder / "record.json", tmp_path)
    for content in (None, '{"kind": "st', json.dumps({"kind": "epoch"}), json.dumps({"kind": "step"})):
        if content is not None:
            (tmp_path / "metrics.jsonl").write_text(content)
        with pytest.raises(UserError, match=r"metrics\.jsonl"):
            draw_curves(tmp_path)
