"""Trainings whose compiled kernels find no place on the disk: they take longer to start, and that is all."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from places import read_only, small_disk

from fastcifar.config import Config
from fastcifar.config.toml import to_toml

PLACES: dict[str, Callable[[Path], contextlib.AbstractContextManager[Path]]] = {
    "read-only": read_only,
    "full": lambda folder: small_disk(folder, 1 / 64),
}


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_training_without_a_cache(place: str, tiny: Config, tmp_path: Path):
    (tmp_path / "config.toml").write_text(to_toml(tiny))
    hashes = []
    (tmp_path / "kernels").mkdir()
    with PLACES[place](tmp_path / "kernels") as kernels:
        for number, environment in enumerate(({}, {"NUMBA_CACHE_DIR": str(kernels)})):
            runs = tmp_path / f"runs-{number}"
            command = [sys.executable, "-m", "fastcifar.train", "--config", tmp_path / "config.toml", "--runs", runs]
            subprocess.run(command, env=os.environ | environment, check=True, capture_output=True)
            record = json.loads(next(runs.glob("*/record.json")).read_text())
            hashes.append(record["weights_sha256"])
        assert not list(kernels.rglob("*.nbc"))
    assert len(set(hashes)) == 1
