"""`pytest bench/ --benchmark-only`: a quick check that a change did not slow down the kernel or our loaders.

Uses the data in data/ if it is prepared, otherwise the synthetic set. Published figures come from `python -m bench`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.loaders import consume
from bench.peers import AUGMENT
from fastcifar.augment.transform import Transform
from fastcifar.data.prepared import load_manifest, read_split, write_set
from fastcifar.data.sources.synthetic import synthetic_set
from fastcifar.loader import LOADERS, open_loader

DTYPES = (torch.float32, torch.bfloat16)
PREPARED = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder."""
    if (PREPARED / "manifest.json").exists():
        return PREPARED
    folder = tmp_path_factory.mktemp("data")
    write_set(synthetic_set(train=10_000, test=1000), folder)
    return folder


def _transform(data: Path, dtype: torch.dtype) -> Transform:
    manifest = load_manifest(data)
    return Transform(AUGMENT, manifest.mean_01, manifest.std_01, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("batch", [500, 2500])
def test_kernel(benchmark: Any, data: Path, dtype: torch.dtype, batch: int):
    """One call of the kernel on shuffled images."""
    images, _ = read_split(data, "train")
    rows = np.random.default_rng(0).permutation(len(images))[:batch].astype(np.int64)
    out = benchmark.pedantic(_transform(data, dtype), (images, rows, rows, 0), rounds=30, warmup_rounds=3)
    assert out.shape == (batch, 3, 32, 32)
    benchmark.extra_info["images"] = batch


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", LOADERS)
def test_loader(benchmark: Any, data: Path, kind: Any, dtype: torch.dtype):
    """Twenty batches of an epoch, from asking for the first one."""
    options: dict[str, Any] = {"batch_size": 500, "seed": 0, "shuffle": True, "drop_last": True}
    with open_loader(kind, data, "train", _transform(data, dtype), **options) as loader:

        def batches() -> int:
            seen = 0
            for _, (images, labels) in zip(range(20), loader.epoch(0), strict=False):
                consume(images, labels)
                seen += len(labels)
            return seen

        seen = benchmark.pedantic(batches, rounds=5, warmup_rounds=1)
    assert seen == 10_000
    benchmark.extra_info["images"] = seen
