"""Valid inputs of every target, small: what a fuzzer starts from."""

import io
import json
import pickle
import struct
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
    """An image of noise."""
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


def _batch(rows: int = 1) -> bytes:
    """As Python 2 pickled it, with protocol 2."""
    text = lambda value: b"U" + bytes([len(value)]) + value  # noqa: E731
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87Rq\x04(K\x01"
    shape = b"K" + bytes([rows]) + b"M\x00\x0c\x86"
    dtype = (
        b"cnumpy\ndtype\nq\x05U\x02u1K\x00K\x01\x87Rq\x06(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    )
    content = b"T" + struct.pack("<i", 3072 * rows) + bytes(3072 * rows) + b"tb"
    labels = b"](" + b"K\x01" * rows + b"e"
    names = b"](" + b"".join(map(text, (b"cat", b"dog"))) + b"e"
    items = text(b"data") + array + shape + dtype + content + text(b"labels") + labels + text(b"label_names") + names
    return b"\x80\x02}q\x01(" + items + b"u."


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
    batches = {name: _batch() for name in ("test_batch", *(f"data_batch_{number}" for number in range(1, 6)))}
    python = {**batches, "batches.meta": pickle.dumps({"label_names": list(NAMES)}, 2)}
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
    }  # fmt: skip
    tensors = {"model.x": torch.ones(2, 3), "random.cpu": torch.zeros(4, dtype=torch.uint8)}
    with tempfile.TemporaryDirectory() as folder:
        return write_checkpoint(Path(folder), Checkpoint(7, tensors, facts), keep=1).read_bytes()


def _record() -> bytes:
    facts = {"class_names": NAMES, "mean_01": [0.5, 0.4, 0.3], "std_01": [0.2, 0.2, 0.2], "dataset": "custom"}
    return json.dumps({"recipe": "smoke", "weights_sha256": "0" * 64, **facts, "clock": {"run_s": 1.5}}).encode()


def seeds(target: str) -> list[bytes]:
    """The inputs to start from; every target has some."""
    tree = b"\n".join(b"p" + name.encode() for name in _tree()) + b"\ndtrain/cat\nxtest/dog/2.txt"
    return {
        "manifest": lambda: [manifest_seed()],
        "verified": lambda: [b'{"train": [64768, 12, 4096, 1700000000000000000, "%064x"], "test": null}' % 5],
        "config": lambda: [to_toml(make()).encode() for make in RECIPES.values()],
        "archive": _archives,
        "pickled_batch": lambda: [
            _batch(),
            _batch(2),
            *(pickle.dumps({"labels": [1, True, None], "label_names": list(NAMES)}, p) for p in range(6)),
        ],
        "binary_batch": lambda: [b"cat\ndog\n\0" + bytes(3073), b"cat\ndog\n\0" + bytes([1]) + bytes(3072)],
        "image": _images,
        "image_tree": lambda: [tree],
        "checkpoint": lambda: [_checkpoint()],
        "image_of_the_user": lambda: [*_images(), *(png("RGB", 8, kind) for kind in FORMATS)],
        "record": lambda: [_record()],
    }[target]()
