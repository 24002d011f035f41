"""Trees of image files: `train/<class>/*.png` and `test/<class>/*.png`, or the same one folder deeper."""

from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np

from fastcifar.data.cifar10 import IMAGE_SHAPE
from fastcifar.data.raw_set import SPLITS, RawSet, RawSplit, SourceInfo
from fastcifar.data.sources.image_file import SUFFIXES, decode
from fastcifar.data.sources.members import Member
from fastcifar.errors import UserError


@dataclass(slots=True)
class ImageTree:
    """Collects the images of a tree, member by member in any order; `where` names the tree in errors."""

    where: str
    resize: bool
    roots: set[PurePosixPath] = field(default_factory=set)
    classes: dict[str, set[str]] = field(default_factory=lambda: {split: set() for split in SPLITS})
    decoded: dict[str, dict[tuple[str, str], bytes]] = field(default_factory=lambda: {split: {} for split in SPLITS})
    skipped: int = 0

    def add(self, member: Member) -> bool:
        """Reads a member if it belongs to a tree; returns whether it did. UserError for a bad image."""
        at = 3 if member.read else 2  # where the split is, from the end: split/class/file or split/class
        parts = member.name.parts
        if len(parts) not in (at, at + 1) or parts[-at] not in SPLITS:
            return False
        split, name = parts[-at], parts[-at + 1]
        self.roots.add(PurePosixPath(*parts[:-at]))
        if len(self.roots) > 1:
            found = ", ".join(sorted(str(root / "train") for root in self.roots))
            raise UserError(f"{self.where} holds more than one tree of images: {found}; name one of them")
        self.classes[split].add(name)
        if member.read is None:
            return True
        if member.name.suffix.lower() not in SUFFIXES:
            self.skipped += 1
            return True
        if (name, parts[-1]) in self.decoded[split]:
            raise UserError(f"{self.where}: {member.name} occurs twice")
        self.decoded[split][name, parts[-1]] = decode(f"{self.where}: {member.name}", member.read(), self.resize)
        return True

    def finish(self, source: SourceInfo) -> RawSet:
        """The set. Labels follow the sorted class folders; samples are sorted by class, then file name.

        UserError for a class missing in one split, an empty class, fewer than two classes or no images.
        """
        self._check()
        names = tuple(sorted(self.classes["train"]))
        notes = (f"skipped {self.skipped} files that are not PNG or JPEG",) if self.skipped else ()
        return RawSet(
            train=self._split("train"), test=self._split("test"), class_names=names, source=source, notes=notes
        )

    def _check(self) -> None:
        for split in SPLITS:
            if not self.decoded[split]:
                raise UserError(f"{self.where}: no images (png, jpg, jpeg) in {split}/<class>/")
        for split, other in (("train", "test"), ("test", "train")):
            for name in sorted(self.classes[other] - self.classes[split]):
                raise UserError(f"{self.where}: class folder {split}/{name} is missing, but {other}/{name} exists")
            for name in sorted(self.classes[split] - {key[0] for key in self.decoded[split]}):
                raise UserError(f"{self.where}: class folder {split}/{name} has no png, jpg or jpeg files")
        if len(self.classes["train"]) < 2:
            raise UserError(f"{self.where}: only one class, {min(self.classes['train'])}, expected at least two")

    def _split(self, split: str) -> RawSplit:
        labels = {name: label for label, name in enumerate(sorted(self.classes[split]))}
        decoded = self.decoded.pop(split)
        keys = sorted(decoded)
        images = np.empty((len(keys), *IMAGE_SHAPE), np.uint8)
        for index, key in enumerate(keys):
            images[index] = np.frombuffer(decoded[key], np.uint8).reshape(IMAGE_SHAPE)
        return RawSplit(images_nhwc=images, labels=np.array([labels[name] for name, _ in keys], np.int64))
