"""A small set in every form, and prepared folders of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from raw_files import Files, encode_beton, python2_batch, python2_meta

from fastcifar.data import beton_set
from fastcifar.data.prepared import write_set
from fastcifar.data.raw_set import SPLITS, RawSet, RawSplit
from fastcifar.data.sources.synthetic import synthetic_set


@pytest.fixture(scope="session")
def small_set() -> RawSet:
    return synthetic_set(train=230, test=50, seed=3)


@pytest.fixture(scope="session")
def written(small_set: RawSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that FFCV has written; read only."""
    folder = tmp_path_factory.mktemp("written")
    write_set(small_set, folder)
    return folder


@pytest.fixture
def quick_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes betons in smaller pages without FFCV; `test_ffcv_writes_the_documented_layout` compares the two."""

    def write(targets: list[tuple[Path, RawSplit]]) -> None:
        for path, split in targets:
            path.write_bytes(encode_beton(split.images_nhwc, split.labels, page=1 << 21))

    monkeypatch.setattr(beton_set, "write_betons", write)


@pytest.fixture
def prepared(quick_writer: None, small_set: RawSet, tmp_path: Path) -> Path:
    """A prepared folder that a test may damage."""
    folder = tmp_path / "prepared"
    write_set(small_set, folder)
    return folder


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    return encode_beton


@pytest.fixture(scope="session")
def tree_files(small_set: RawSet, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """`small_set` as a tree of PNG files, suffixes in both cases, in sorted order of class and name."""
    path, files = tmp_path_factory.mktemp("tree") / "image.png", {}
    for name in SPLITS:
        split = small_set.split(name)
        for index, (image, label) in enumerate(zip(split.images_nhwc, split.labels, strict=True)):
            Image.fromarray(image).save(path)
            suffix = ".PNG" if index % 7 == 0 else ".png"
            files[f"{name}/{small_set.class_names[label]}/{index:04}{suffix}"] = path.read_bytes()
    return files


@pytest.fixture(scope="session")
def sorted_set(small_set: RawSet) -> RawSet:
    """`small_set` in the order of an image tree."""

    def by_class(split: RawSplit) -> RawSplit:
        order = np.argsort(split.labels, kind="stable")
        return RawSplit(images_nhwc=split.images_nhwc[order], labels=split.labels[order])

    return replace(small_set, train=by_class(small_set.train), test=by_class(small_set.test))


def batch_rows(small_set: RawSet) -> dict[str, tuple[np.ndarray, list[int]]]:
    parts = {f"data_batch_{n + 1}": (small_set.train, slice(46 * n, 46 * n + 46)) for n in range(5)}
    rows = {}
    for name, (split, part) in {**parts, "test_batch": (small_set.test, slice(None))}.items():
        images = split.images_nhwc[part].transpose(0, 3, 1, 2)
        rows[name] = (np.ascontiguousarray(images).reshape(-1, 3072), split.labels[part].tolist())
    return rows


@pytest.fixture(scope="session")
def python_files(small_set: RawSet) -> Files:
    """`small_set` as CIFAR-10's pickled batches."""
    files = {name: python2_batch(*rows) for name, rows in batch_rows(small_set).items()}
    return {**files, "batches.meta": python2_meta([name.encode() for name in small_set.class_names])}


@pytest.fixture(scope="session")
def binary_files(small_set: RawSet) -> Files:
    """`small_set` as CIFAR-10's binary batches."""
    files = {}
    for name, (rows, labels) in batch_rows(small_set).items():
        files[f"{name}.bin"] = np.concatenate([np.array(labels, np.uint8)[:, None], rows], 1).tobytes()
    return {**files, "batches.meta.txt": ("\n".join(small_set.class_names) + "\n\n").encode()}
