"""One small prepared folder for all loader tests, and a reference that computes any batch without a loader."""

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastcifar.augment.transform import Transform
from fastcifar.config import AugmentConfig
from fastcifar.data.prepared import load_manifest, write_set
from fastcifar.data.raw_set import RawSet
from fastcifar.data.sources.synthetic import synthetic_set
from fastcifar.loader import LoaderOptions, base, open_loader
from fastcifar.loader.base import Loader
from fastcifar.loader.order import epoch_order

SAMPLES = 1003


@dataclass(frozen=True, kw_only=True)
class Prepared:
    folder: Path
    raw: RawSet
    transform: Transform

    def open(
        self, kind: Any, split: Any = "train", transform: Any = None, transform_kind: Any = None, **changes: Any
    ) -> Loader:
        """A loader of `folder`: by default shuffled by seed 7, in batches of 128 and a last one of 107."""
        options = {"batch_size": 128, "seed": 7, "shuffle": True, "drop_last": False} | changes
        options["transform"] = transform_kind
        return open_loader(kind, self.folder, split, transform or self.transform, LoaderOptions(**options))

    def batch(self, indices: np.ndarray, epoch: int, size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
        """What a loader must deliver for these samples of the train split, without any loader."""
        images = self.transform(self.raw.train.images_nhwc, indices, indices, epoch, size)
        return images, torch.from_numpy(self.raw.train.labels[indices])

    def epoch(self, epoch: int, batch_size: int = 128, seed: int = 7) -> list[tuple[torch.Tensor, torch.Tensor]]:
        order = epoch_order(SAMPLES, seed, epoch)
        return [self.batch(order[i : i + batch_size], epoch) for i in range(0, len(order), batch_size)]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    raw = synthetic_set(train=SAMPLES, test=97, seed=5)
    folder = tmp_path_factory.mktemp("prepared")
    write_set(raw, folder)
    manifest = load_manifest(folder)
    return Prepared(folder=folder, raw=raw, transform=Transform(AugmentConfig(), manifest.mean_01, manifest.std_01))


@pytest.fixture(scope="session")
def same() -> Callable[..., None]:
    """Asserts that two sequences of batches are bit-identical."""

    def check(found: Any, expected: Any) -> None:
        found, expected = list(found), list(expected)
        assert len(found) == len(expected)
        for (images, labels), (expected_images, expected_labels) in zip(found, expected, strict=True):
            assert labels.dtype == torch.int64
            assert torch.equal(labels, expected_labels)
            assert images.dtype == expected_images.dtype
            assert torch.equal(images, expected_images)

    return check


@pytest.fixture
def stream(prepared: Prepared) -> Iterator[Loader]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "IMAGES_PER_READ", 1)  # each batch is a read of its own
        loader = prepared.open("stream", batch_size=50)  # 21 batches: far more than are read ahead
    with loader:
        list(loader.epoch(0, 19))  # imports and compiles
        gc.freeze()  # makes full collections quick: they only look at objects made by the test
        yield loader
        gc.unfreeze()
