"""CIFAR-10's batch files in both formats: pickled (`data_batch_1`) and binary (`data_batch_1.bin`).

In both, an image is 3072 bytes: 1024 red, 1024 green, 1024 blue, rows from the top.
Source: https://www.cs.toronto.edu/~kriz/cifar.html
"""

import numpy as np

from fastcifar.data.cifar10 import CHANNELS, IMAGE_BYTES, IMAGE_SIZE
from fastcifar.data.raw_set import RawSet, RawSplit, SourceInfo, SourceKind
from fastcifar.data.sources.members import Member
from fastcifar.data.sources.pickled_batch import read_batch, read_class_names
from fastcifar.errors import UserError

_ROW_BYTES = 1 + IMAGE_BYTES  # of a binary batch: label, pixels
Rows = tuple[np.ndarray, np.ndarray]  # uint8 (n, 3072) and int64 (n,)


class Batches:
    """Collects the batch files of one format, member by member in any order; `where` names the set in errors."""

    def __init__(self, where: str, kind: SourceKind) -> None:
        self.where = where
        self.binary = kind == "cifar-binary"
        suffix = ".bin" if self.binary else ""
        self.train = tuple(f"data_batch_{number}{suffix}" for number in range(1, 6))
        self.test = f"test_batch{suffix}"
        self.meta = "batches.meta.txt" if self.binary else "batches.meta"
        self.rows: dict[str, Rows] = {}
        self.class_names: tuple[str, ...] | None = None

    def add(self, member: Member) -> bool:
        """Reads a member if it is one of the batch files; returns whether it was. UserError for a bad one."""
        name = member.name.name
        if member.read is None or name not in (*self.train, self.test, self.meta):
            return False
        where = f"{self.where}: {member.name}"
        if name in self.rows or (name == self.meta and self.class_names is not None):
            raise UserError(f"{where}: there is more than one {name}")
        if name == self.meta:
            self.class_names = (_class_names_of_text if self.binary else read_class_names)(where, member.read())
        else:
            self.rows[name] = (_read_binary if self.binary else read_batch)(where, member.read())
        return True

    def finish(self, source: SourceInfo) -> RawSet:
        """The set, with the five train batches in order; UserError for a missing file or a label out of range."""
        for name in (*self.train, self.test):
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
            train=_joined([self.rows.pop(name) for name in self.train]),
            test=_joined([self.rows.pop(self.test)]),
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
    if len(content) % _ROW_BYTES or not content:
        raise UserError(f"{where} has {len(content)} bytes, expected rows of {_ROW_BYTES} (label and pixels)")
    rows = np.frombuffer(content, np.uint8).reshape(-1, _ROW_BYTES)
    return np.ascontiguousarray(rows[:, 1:]), rows[:, 0].astype(np.int64)


def _class_names_of_text(where: str, content: bytes) -> tuple[str, ...]:
    try:
        names = tuple(content.decode("ascii").split())
    except UnicodeDecodeError:
        raise UserError(f"{where} is not ASCII text") from None
    if len(names) < 2 or len(set(names)) != len(names):
        raise UserError(f"{where} names {len(names)} classes, expected at least two distinct ones")
    return names
