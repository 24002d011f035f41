"""The readers of untrusted input as functions of bytes, which raise UserError or RunFailedError and nothing else.

A new target is a function here, an entry in TARGETS and a few valid inputs in `seeds.py`. `driver.py` fuzzes the
targets; `test_targets.py` replays the inputs in `corpus/<target>/`.
"""

import contextlib
import io
import json
import os
import re
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from safetensors import SafetensorError, safe_open

from fastcifar.augment.transform import Transform
from fastcifar.config import NO_AUGMENTATION
from fastcifar.data.checks import VERIFIED_NAME, checked_beton
from fastcifar.data.manifest import MANIFEST_NAME, load_manifest
from fastcifar.data.raw_set import SourceInfo
from fastcifar.data.sources.batches import Batches
from fastcifar.data.sources.detect import open_source
from fastcifar.data.sources.image_file import decode
from fastcifar.data.sources.image_tree import ImageTree
from fastcifar.data.sources.members import Member
from fastcifar.data.sources.pickled_batch import read_batch, read_class_names
from fastcifar.data.sources.user_image import read_image
from fastcifar.errors import RunFailedError, UserError
from fastcifar.recipes import load_config
from fastcifar.runs.checkpoint import digest_of, read_checkpoint
from fastcifar.runs.load import load_facts
from fastcifar.runs.record import RECORD_NAME
from fastcifar.runs.resume import environment_changes
from fastcifar.training.history import History

SOURCE = SourceInfo(kind="image-folder", name="fuzz")


_memory = Path("/dev/shm")
_temporary = tempfile.TemporaryDirectory(prefix="fastcifar-", dir=_memory if os.access(_memory, os.W_OK) else None)
FOLDER = Path(_temporary.name)


def _file(name: str, content: bytes) -> Path:
    path = FOLDER / name
    path.write_bytes(content)
    return path


def manifest(content: bytes) -> None:
    """A manifest.json, and its summary as `prepare` prints it."""
    from fastcifar.cli.prepare import summary

    _file(MANIFEST_NAME, content)
    summary(load_manifest(FOLDER), FOLDER).encode("utf-8")


def verified(content: bytes) -> None:
    """The cache of verified files: whatever it holds, a beton that differs from the manifest is refused."""
    from seeds import manifest_seed

    _file(MANIFEST_NAME, manifest_seed())
    _file("train.beton", bytes(json.loads(manifest_seed())["splits"]["train"]["bytes"]))
    _file(VERIFIED_NAME, content)
    checked_beton(FOLDER, "train")
    raise AssertionError("a beton of zeros was accepted")


def config(content: bytes) -> None:
    """A configuration in TOML, through tyro to the dataclasses."""
    load_config(_file("config.toml", content))


def archive(content: bytes) -> None:
    """An archive of any format. Tar headers get valid checksums, as an attacker would write them."""
    open_source(_file("source", _with_tar_checksums(content))).read(True)


def _with_tar_checksums(content: bytes) -> bytes:
    if content[257:262] != b"ustar":
        return content
    whole = bytearray(content)
    for start in range(0, len(whole) - 511, 512):
        if whole[start + 257 : start + 262] == b"ustar":
            whole[start + 148 : start + 156] = b" " * 8
            whole[start + 148 : start + 156] = b"%06o\0 " % sum(whole[start : start + 512])
    return bytes(whole)


def pickled_batch(content: bytes) -> None:
    """A pickled batch and `batches.meta` of CIFAR-10, alone and as every file of a set."""
    for read in (read_batch, read_class_names):
        with contextlib.suppress(UserError):
            read("batch", content)
    batches = Batches("set", "cifar-python")
    for name in ("batches.meta", "test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        batches.add(Member(PurePosixPath(name), lambda: content))
    batches.finish(SOURCE)


def binary_batch(content: bytes) -> None:
    """Binary batches: class names up to the first NUL byte, then the rows of every file."""
    names, _, rows = content.partition(b"\0")
    batches = Batches("set", "cifar-binary")
    batches.add(Member(PurePosixPath("batches.meta.txt"), lambda: names))
    for name in ("test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        batches.add(Member(PurePosixPath(f"{name}.bin"), lambda: rows))
    batches.finish(SOURCE)


def image(content: bytes) -> None:
    """A PNG or JPEG image, with and without conversion. PNG chunks get valid checksums."""
    content = _with_png_checksums(content)
    with contextlib.suppress(UserError):
        decode("image", content, False)
    assert len(decode("image", content, True)) == 32 * 32 * 3


def _with_png_checksums(content: bytes) -> bytes:
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return content
    whole, start = bytearray(content), 8
    while start + 12 <= len(whole):
        end = start + 8 + int.from_bytes(whole[start : start + 4], "big")
        whole[end : end + 4] = zlib.crc32(whole[start + 4 : end]).to_bytes(4, "big")
        start = end + 4
    return bytes(whole)


def image_tree(content: bytes) -> None:
    """A tree of images: one member name per line, prefixed with d (folder), p (PNG image) or x (the line itself)."""
    from seeds import png

    tree = ImageTree("tree", resize=True)
    for line in content.split(b"\n"):
        kind, name = line[:1], line[1:].decode("utf-8", "surrogateescape")
        read = {b"d": None, b"p": png}.get(kind, lambda line=line: line)
        tree.add(Member(PurePosixPath(name), read))
    raw = tree.finish(SOURCE)
    "\n".join((*raw.class_names, *raw.notes)).encode("utf-8")


def checkpoint(content: bytes) -> None:
    """A checkpoint. The digest in its header is made valid, as an attacker would write it."""
    path = _file("step-00000001.safetensors", content)
    with contextlib.suppress(SafetensorError, OSError, ValueError, RuntimeError):
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            digest = digest_of(tensors, (file.metadata() or {}).get("facts", ""))
        _file(path.name, re.sub(rb'"sha256":"[0-9a-f]{64}"', b'"sha256":"%s"' % digest.encode(), content, count=1))
    found = read_checkpoint(path)
    environment_changes(found.facts, {"versions": {}, "hardware": {}, "cpu_kernels": "torch", "code_revision": None})
    History(io.StringIO(), total=9, batch_size=9, classes=2).restore(found.facts["state"]["history"])


def record(content: bytes) -> None:
    """The record of a finished run, as far as a loaded run uses it."""
    _file(RECORD_NAME, content)
    facts = load_facts(FOLDER)
    Transform(NO_AUGMENTATION, tuple(facts["mean_01"]), tuple(facts["std_01"]))
    ", ".join([*facts["class_names"], facts["dataset"]]).encode("utf-8")


def user_image(content: bytes) -> None:
    """An image as `predict` reads it: any size, more formats."""
    assert read_image(_file("image", _with_png_checksums(content))).shape == (32, 32, 3)


_functions = (
    manifest, verified, config, archive, pickled_batch, binary_batch, image, user_image, image_tree, checkpoint,
    record,
)  # fmt: skip
TARGETS: dict[str, Callable[[bytes], None]] = {function.__name__: function for function in _functions}


def try_input(target: str, content: bytes) -> str | None:
    """Runs a target. Returns the message of a UserError or RunFailedError, None without one; others are findings."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            TARGETS[target](content)
    except (UserError, RunFailedError) as error:
        return str(error)
    return None
