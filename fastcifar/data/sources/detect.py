"""Detects the format of a source by its content and reads it into arrays."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from fastcifar.data.cifar10 import IMAGE_TREE_ARCHIVE, OFFICIAL_ARCHIVES
from fastcifar.data.raw_set import SPLITS, RawSet, SourceInfo, SourceKind
from fastcifar.data.sources.batches import Batches
from fastcifar.data.sources.image_tree import ImageTree
from fastcifar.data.sources.members import archive_members, folder_members, is_archive
from fastcifar.errors import UserError
from fastcifar.files import digest
from fastcifar.runtime.progress import progress

_EXPECTED = (
    "expected cifar-10-python.tar.gz, cifar-10-binary.tar.gz, one of them unpacked, or train/<class>/*.png and "
    "test/<class>/*.png as a folder or a .tar, .tar.gz, .tar.xz or .zip"
)
_UNPACKED: tuple[tuple[str, SourceKind], ...] = (("data_batch_1", "cifar-python"), ("data_batch_1.bin", "cifar-binary"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """An archive, or a folder of `kind`. `checksum` changes when the content does."""

    path: Path
    name: str
    kind: SourceKind | None  # None for an archive, whose kind is known only after reading
    checksum: str

    def read(self, resize: bool) -> RawSet:
        """Reads the whole set; UserError names the file that is wrong."""
        if self.kind is None:
            return _read_archive(self, resize)
        return _read_folder(self, self.kind, resize)


def open_source(path: Path) -> Source:
    """Recognises a file or folder without reading its images; a folder may hold the set one level deeper.

    Raises UserError if it does not exist, holds no known layout, or is named like an official archive but has another
    checksum.
    """
    if not path.exists():
        raise UserError(f"source {path} does not exist")
    if path.is_dir():
        source = find_in_folder(path)
        if source is None:
            raise UserError(f"{path} holds no set of images; {_EXPECTED}")
        return source
    if not path.is_file() or not is_archive(path):
        raise UserError(f"{path} is not an archive; {_EXPECTED}")
    return _archive(path)


def find_in_folder(folder: Path) -> Source | None:
    """A set unpacked in `folder` or one of its subfolders, else an official archive in it, else None."""
    inner = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    for place in (folder, *inner):
        kind = _kind_of_folder(place)
        if kind is not None:
            others = [other.name for other in inner if other != place and _kind_of_folder(other) == kind]
            if place != folder and others and kind == "image-folder":
                raise UserError(f"{folder} holds more than one tree of images: {place.name}, {', '.join(others)}")
            return Source(path=place, name=place.resolve().name, kind=kind, checksum=_listing(place, kind))
    for archive in (*OFFICIAL_ARCHIVES, IMAGE_TREE_ARCHIVE):
        if (folder / archive.name).is_file():
            return _archive(folder / archive.name)
    return None


def _kind_of_folder(folder: Path) -> SourceKind | None:
    for name, kind in _UNPACKED:
        if (folder / name).is_file():
            return kind
    return "image-folder" if all((folder / split).is_dir() for split in SPLITS) else None


def _archive(path: Path) -> Source:
    found = digest(path, "md5")
    for archive in OFFICIAL_ARCHIVES:
        if path.name == archive.name and found != archive.md5:
            size = path.stat().st_size
            raise UserError(
                f"{path} has the MD5 {found} ({size} bytes), expected {archive.md5} ({archive.size} "
                "bytes); it is damaged, or not the official archive and must be renamed"
            )
    return Source(path=path, name=path.name, kind=None, checksum=f"md5:{found}")


def _listing(folder: Path, kind: SourceKind) -> str:
    """A digest of file names, sizes and modification times: cheap, and different after any edit of an image."""
    lines = []
    for root, folders, files in os.walk(folder, followlinks=True):
        depth = len(Path(root).relative_to(folder).parts)
        folders[:] = [name for name in folders if not name.startswith(".") and (depth or name in SPLITS)]
        if depth >= 2 or kind != "image-folder":
            folders.clear()
        for name in files:
            if not name.startswith("."):
                path = os.path.join(root, name)  # noqa: PTH118  (60,000 files: Path would take twice as long)
                try:
                    stat = os.stat(path)  # noqa: PTH116
                except OSError as error:
                    raise UserError(f"{path} cannot be read: {error.strerror}") from None
                lines.append(f"{os.path.relpath(path, folder)}\0{stat.st_size}\0{stat.st_mtime_ns}")
    return f"listing:{hashlib.sha256(chr(10).join(sorted(lines)).encode('utf-8', 'surrogateescape')).hexdigest()}"


def _read_archive(source: Source, resize: bool) -> RawSet:
    collectors: dict[SourceKind, ImageTree | Batches] = {
        "cifar-python": Batches(str(source.path), "cifar-python"),
        "cifar-binary": Batches(str(source.path), "cifar-binary"),
        "image-folder": ImageTree(str(source.path), resize),
    }
    found: set[SourceKind] = set()
    for member in archive_members(source.path):
        for kind, collector in collectors.items():
            if collector.add(member):
                found.add(kind)
                break
    if len(found) != 1:
        raise UserError(f"{source.path} holds {', '.join(sorted(found)) or 'none of the known layouts'}; {_EXPECTED}")
    kind = found.pop()
    return collectors[kind].finish(SourceInfo(kind=kind, name=source.name, checksum=source.checksum))


def _read_folder(source: Source, kind: SourceKind, resize: bool) -> RawSet:
    info = SourceInfo(kind=kind, name=source.name, checksum=source.checksum)
    if kind != "image-folder":
        batches = Batches(str(source.path), kind)
        for member in folder_members(source.path, 1):
            batches.add(member)
        return batches.finish(info)
    tree = ImageTree(str(source.path), resize)
    members = [member for member in folder_members(source.path, 3) if member.name.parts[0] in SPLITS]
    with progress("read images", sum(member.read is not None for member in members)) as bar:
        done = 0
        for member in members:
            tree.add(member)
            done += member.read is not None
            bar.update(done)
    return tree.finish(info)
