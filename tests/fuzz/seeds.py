"""Small valid inputs of every target, from which the fuzzer starts."""

import io
import json
import pickle
import tarfile
import tempfile
import zipfile
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fastcifar.config.toml import to_toml
from fastcifar.data.manifest import Manifest, SplitInfo
from fastcifar.data.raw_set import SourceInfo
from fastcifar.recipes import RECIPES
from fastcifar.runs.checkpoint import Checkpoint, write_checkpoint

NAMES = ("cat", "dog")
FORMATS = ("BMP", "GIF", "PPM", "TIFF", "WEBP")  # besides PNG and JPEG


def manifest_seed() -> bytes:
    """A manifest of two classes."""
    splits = {
        name: SplitInfo(file=f"{name}.beton", sha256=f"{samples:064x}", bytes=4096, samples=samples)
        for name, samples in (("train", 5), ("test", 2))
    }
    manifest = Manifest(
        format_version=1, dataset="custom", class_names=NAMES, mean_01=(0.5, 0.25, 0.125), std_01=(0.2, 0.3, 0.1),
        splits=splits, source=SourceInfo(kind="image-folder", name="set.tar", checksum="md5:0"),
        content_sha256="0" * 64, fastcifar_version="0.1.0",
    )  # fmt: skip
    return json.dumps(asdict(manifest)).encode()


@cache
def png(mode: str = "RGB", size: int = 32, kind: str = "PNG", **options: object) -> bytes:
    """An image file of random pixels."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    noise = np.random.default_rng(size).integers(0, 256, (size, size, bands), np.uint8)
    buffer = io.BytesIO()
    if mode == "P":
        image = Image.fromarray(noise[..., 0]).convert("P")
    else:
        image = Image.fromarray(noise[..., 0] if bands == 1 else noise, mode if mode == "CMYK" else None)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _images() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        png(), png("L", 8), png("LA", 8), png("RGBA", 8),
        png("P", 8, transparency=0), png("P", 8, transparency=b"\x01\x02"),
        png(kind="JPEG", quality=30), png("L", 16, "JPEG"), png("CMYK", 16, "JPEG"),
        png("RGB", 16, "JPEG", progressive=True, exif=exif.tobytes()), png("RGB", 12, optimize=True, dpi=(72, 72)),
    ]  # fmt: skip


def _tree() -> dict[str, bytes]:
    files = {f"{split}/{name}/1.png": png("L", 8) for split in ("train", "test") for name in NAMES}
    return {**files, "train/cat/notes.txt": b"text"}


def _batch(protocol: int) -> bytes:
    """A pickled batch that is also a `batches.meta`. One of Python 2 is in the corpus."""
    data = np.zeros((2, 3072), np.uint8)
    return pickle.dumps({"data": data, "labels": [1, 0], "label_names": list(NAMES)}, protocol)


def _tar(files: dict[str, bytes], mode: str, kind: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=kind) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _zip(files: dict[str, bytes], method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _archives() -> list[bytes]:
    long = {f"train/cat/{'x' * 120}.png": png("L", 8)}
    batches = ("batches.meta", "test_batch", *(f"data_batch_{number}" for number in range(1, 6)))
    python = dict.fromkeys(batches, _batch(4))
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    return [
        *(_tar(_tree(), mode) for mode in ("w", "w:gz", "w:xz")),
        _tar(long, "w"), _tar(long, "w", tarfile.PAX_FORMAT),
        _tar({"train/caf\u00e9/1": b"x"}, "w", tarfile.PAX_FORMAT),
        _tar({"data_batch_1": b"x"}, "w", tarfile.USTAR_FORMAT), _tar(python, "w:gz"),
        *(_zip(_tree(), method) for method in methods),
    ]  # fmt: skip


def _checkpoint() -> bytes:
    history = {"loss": 1.5, "accuracy": None, "epoch": [[2.0, 0.25]], "recent": [0.5], "judged": False}
    facts = {
        "state": {"scaler": {"scale": 1.0}, "history": history}, "metrics_bytes": 10, "train_accuracy": 0.5,
        "train_s": 1.0, "run_s": 2.0, "resumed_at": [3], "dataset_sha256": "0" * 64,
        "versions": {"torch": "2.15.0"}, "hardware": {"cores": 2}, "code_revision": None,
        "imports": {"my_network": None},
    }  # fmt: skip
    tensors = {"model.x": torch.ones(2, 3), "random.cpu": torch.zeros(4, dtype=torch.uint8)}
    with tempfile.TemporaryDirectory() as folder:
        return write_checkpoint(Path(folder), Checkpoint(7, tensors, facts), keep=1).read_bytes()


def _record() -> bytes:
    facts = {"class_names": NAMES, "mean_01": [0.5, 0.4, 0.3], "std_01": [0.2, 0.2, 0.2], "dataset": "custom"}
    facts |= {"evaluation": "single_view", "test_accuracy": 0.5, "test_accuracy_tta": 0.5}
    return json.dumps({"recipe": "smoke", "weights_sha256": "0" * 64, **facts, "clock": {"run_s": 1.5}}).encode()


@cache
def seeds(target: str) -> list[bytes]:
    """The inputs to start from; every target has some."""
    tree = b"\n".join(b"p" + name.encode() for name in _tree()) + b"\ndtrain/cat\nxtest/dog/2.txt"
    return {
        "manifest": lambda: [manifest_seed()],
        "verified": lambda: [b'{"train": [64768, 12, 4096, 1700000000000000000, "%064x"], "test": null}' % 5],
        "config": lambda: [*(to_toml(make()).encode() for make in RECIPES.values()), b'import = ["fastcifar"]'],
        "archive": _archives,
        "pickled_batch": lambda: [
            _batch(3),
            _batch(4),
            *(pickle.dumps({"labels": [1, True, None], "label_names": list(NAMES)}, p) for p in range(6)),
        ],
        "binary_batch": lambda: [b"cat\ndog\n\0" + bytes(3073), b"cat\ndog\n\0" + bytes([1]) + bytes(3072)],
        "image": _images,
        "image_tree": lambda: [tree],
        "checkpoint": lambda: [_checkpoint()],
        "user_image": lambda: [*_images(), *(png("RGB", 8, kind) for kind in FORMATS)],
        "record": lambda: [_record()],
    }[target]()
