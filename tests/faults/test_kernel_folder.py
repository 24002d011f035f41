"""Training when compiled kernels cannot be cached on disk: it starts more slowly, and nothing else changes."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from places import read_only, small_disk

from fastcifar.config.toml import to_toml

PLACES: dict[str, Callable[[Path], contextlib.AbstractContextManager[Path]]] = {
    "read-only": read_only,
    "full": lambda folder: small_disk(folder, 1 / 64),
}


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_training_without_a_kernel_cache_gives_the_same_weights(place: str, finished: Any, tmp_path: Path):
    (tmp_path / "config.toml").write_text(to_toml(finished.config))
    (tmp_path / "kernels").mkdir()
    runs = tmp_path / "runs"
    command = [sys.executable, "-m", "fastcifar.train", "--config", tmp_path / "config.toml", "--runs", runs]
    with PLACES[place](tmp_path / "kernels") as kernels:
        subprocess.run(command, env=os.environ | {"NUMBA_CACHE_DIR": str(kernels)}, check=True, capture_output=True)
        assert not list(kernels.rglob("*.nbc"))
    record = json.loads(next(runs.glob("*/record.json")).read_text())
    assert record["weights_sha256"] == finished.record["weights_sha256"]
