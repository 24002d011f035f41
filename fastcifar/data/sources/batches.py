"""CIFAR-10's own batch files, both flavours: pickled (`data_batch_1`) and binary (`data_batch_1.bin`).

An image in either is 3072 bytes: 1024 red, 1024 green, 1024 blue, rows from the top.
Source: https://www.cs.toronto.edu/~kriz/cifar.html
"""

from collections.abc import Callable

import numpy as np

from fastcifar.data.cifar10 import CHANNELS, IMAGE_BYTES, IMAGE_SIZE
from fastcifar.data.raw_set import RawSet, RawSplit, SourceInfo, SourceKind
from fastcifar.data.sources.batch_pickle import read_batch, read_class_names
from fastcifar.data.sources.members import Member
from fastcifar.errors import UserError

_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_ROW = 1 + IMAGE_BYTES
Rows = tuple[np.ndarray, np.ndarray]  # uint8 (n, 3072) and int64 (n,)


class Batches:
    """Collects the batch files of one flavour, member by member in any order; `where` names the set in errors."""

    def __init__(self, where: str, kind: SourceKind) -> None:
        self.where, self.kind = where, kind
        self.suffix = ".bin" if kind == "cifar-binary" else ""
        self.meta = "batches.meta.txt" if kind == "cifar-binary" else "batches.meta"
        self.rows: dict[str, Rows] = {}
        self.class_names: tuple[str, ...] | None = None

    def add(self, member: Member) -> bool:
        """Takes a member that is one of the batch files, and says whether it was; UserError for a bad one."""
        name = member.name.name
        wanted = {batch + self.suffix for batch in (*_TRAIN, "test_batch")}
        if member.read is None or name not in wanted | {self.meta}:
            return False
        where = f"{self.where}: {member.name}"
        if name in self.rows or (name == self.meta and self.class_names is not None):
            raise UserError(f"{where}: there is more than one {name}")
        binary = self.kind == "cifar-binary"
        if name == self.meta:
            self.class_names = (_class_names_of_text if binary else read_class_names)(where, member.read())
        else:
            reader: Callable[[str, bytes], Rows] = _read_binary if binary else read_batch
            self.rows[name] = reader(where, member.read())
        return True

    def finish(self, source: SourceInfo) -> RawSet:
        """The set: the five data batches in their order, then the test batch; UserError if a file is missing."""
        train = [batch + self.suffix for batch in _TRAIN]
        for name in (*train, f"test_batch{self.suffix}"):
            if name not in self.rows:
                raise UserError(f"{self.where}: {name} is missing")
        if self.class_names is None:
            raise UserError(f"{self.where}: {self.meta} is missing")
        for name, (_, labels) in self.rows.items():
            wrong = np.flatnonzero((labels < 0) | (labels >= len(self.class_names)))
            if len(wrong):
                label, last = labels[wrong[0]], len(self.class_names) - 1
                raise UserError(f"{self.where}: {name}: label {label} of row {wrong[0]} is outside 0..{last}")
        return RawSet(
            train=_joined([self.rows.pop(name) for name in train]),
            test=_joined([self.rows.pop(f"test_batch{self.suffix}")]),
            class_names=self.class_names,
            source=source,
        )


def _joined(rows: list[Rows]) -> RawSplit:
    labels = np.concatenate([labels for _, labels in rows])
    images = np.empty((len(labels), IMAGE_SIZE, IMAGE_SIZE, CHANNELS), np.uint8)
    start = 0
    for pixels, _ in rows:
        planes = pixels.reshape(-1, CHANNELS, IMAGE_SIZE, IMAGE_SIZE)
        images[start : start + len(planes)] = planes.transpose(0, 2, 3, 1)
        start += len(planes)
    return RawSplit(images_nhwc=images, labels=labels)


def _read_binary(where: str, content: bytes) -> Rows:
    if len(content) % _ROW or not content:
        raise UserError(f"{where} has {len(content)} bytes, expected rows of {_ROW} (a label and 3072 pixels)")
    rows = np.frombuffer(content, np.uint8).reshape(-1, _ROW)
    return np.ascontiguousarray(rows[:, 1:]), rows[:, 0].astype(np.int64)


def _class_names_of_text(where: str, content: bytes) -> tuple[str, ...]:
    try:
        names = tuple(content.decode("ascii").split())
    except UnicodeDecodeError:
        raise UserError(f"{where} is not a text of class names") from None
    if len(names) < 2 or len(set(names)) != len(names):
        raise UserError(f"{where} names {len(names)} classes, expected at least two different ones")
    return names
