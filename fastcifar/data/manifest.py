"""`manifest.json`: what a prepared folder holds, how it was made, and how to tell that it is still that."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

from fastcifar.data.cifar10 import CHANNELS
from fastcifar.data.raw_set import LARGEST_SEED, SOURCE_KINDS, SPLITS, SourceInfo, is_plain_text
from fastcifar.errors import UserError, shown
from fastcifar.files import read_at_most, write_json

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1
PREPARE_AGAIN = "run `fastcifar prepare --force`"
DATASETS = ("cifar10", "synthetic", "custom")
_MAX_BYTES = 4 << 20  # of the manifest: that of a thousand classes has some 20 kB
_LARGEST_COUNT = 1 << 48  # bytes or samples; beyond any disk, and safe to reckon with
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitInfo:
    """One beton: its name in the folder, its SHA-256, its size in bytes, how many samples it holds."""

    file: str
    sha256: str
    bytes: int
    samples: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A prepared set.

    `mean_01` and `std_01` are per channel (red, green, blue) over all pixels of the train split, in 0..1.
    `content_sha256` is `raw_set.content_digest`, `splits` has the keys `train` and `test`.
    """

    format_version: int
    dataset: Literal["cifar10", "synthetic", "custom"]
    class_names: tuple[str, ...]
    mean_01: tuple[float, ...]
    std_01: tuple[float, ...]
    splits: dict[str, SplitInfo]
    source: SourceInfo
    content_sha256: str
    fastcifar_version: str


def load_manifest(folder: Path) -> Manifest:
    """Reads and checks `folder/manifest.json`.

    Raises UserError when it is missing, not JSON, or has a field that is missing, unknown or out of range; the error
    names the field and the value it found.
    """
    path = folder / MANIFEST_NAME
    try:
        value = json.loads(read_at_most(path, _MAX_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"no prepared data in {folder}: {path} is missing; run `fastcifar prepare`") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); {PREPARE_AGAIN}") from None
    return _Checker(path).manifest(value)


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes `folder/manifest.json` atomically."""
    write_json(folder / MANIFEST_NAME, asdict(manifest))


class _Checker:
    """Turns parsed JSON into a Manifest, or says which field is wrong; `where` names the file in errors."""

    def __init__(self, where: Path) -> None:
        self.where = where

    def manifest(self, value: Any) -> Manifest:
        fields = self.object("the whole file", value, Manifest)
        self.check("format_version", fields["format_version"], lambda v: v == FORMAT_VERSION, f"{FORMAT_VERSION}")
        self.check("dataset", fields["dataset"], lambda v: v in DATASETS, f"one of {', '.join(DATASETS)}")
        names = fields["class_names"]
        self.check("class_names", names, is_class_names, "a list of at least two different names")
        mean, std = fields["mean_01"], fields["std_01"]
        self.check("mean_01", mean, is_mean, "three numbers in 0..1")
        self.check("std_01", std, is_std, "three numbers above 0 and up to 0.5")
        self.check("content_sha256", fields["content_sha256"], _is_sha256, "64 hexadecimal digits")
        self.check("fastcifar_version", fields["fastcifar_version"], is_plain_text, "a text")
        splits = fields["splits"]
        self.check("splits", splits, lambda v: isinstance(v, dict) and set(v) == set(SPLITS), "the keys train and test")
        return Manifest(
            **{
                **fields,
                "class_names": tuple(names),
                "mean_01": tuple(float(x) for x in mean),
                "std_01": tuple(float(x) for x in std),
                "splits": {name: self.split(name, splits[name]) for name in SPLITS},
                "source": self.source(fields["source"]),
            }
        )

    def split(self, name: str, value: Any) -> SplitInfo:
        fields = self.object(f"splits.{name}", value, SplitInfo)
        self.check(f"splits.{name}.file", fields["file"], lambda v: v == f"{name}.beton", f"{name}.beton")
        self.check(f"splits.{name}.sha256", fields["sha256"], _is_sha256, "64 hexadecimal digits")
        for count in ("bytes", "samples"):
            self.check(f"splits.{name}.{count}", fields[count], _is_count, "a whole number above 0, at most 2**48")
        return SplitInfo(**fields)

    def source(self, value: Any) -> SourceInfo:
        fields = self.object("source", value, SourceInfo)
        self.check("source.kind", fields["kind"], lambda v: v in SOURCE_KINDS, f"one of {', '.join(SOURCE_KINDS)}")
        self.check("source.name", fields["name"], _is_base_name, "a file name without a folder")
        self.check("source.checksum", fields["checksum"], lambda v: v is None or isinstance(v, str), "a text or null")
        self.check("source.seed", fields["seed"], _is_seed_or_none, "a whole number in 0..2**63-1 or null")
        return SourceInfo(**fields)

    def object(self, name: str, value: Any, kind: type) -> dict[str, Any]:
        self.check(name, value, lambda v: isinstance(v, dict), "an object")
        expected = set(kind.__dataclass_fields__)
        prefix = "" if name == "the whole file" else f"{name}."
        for field in sorted(expected - set(value)):
            raise UserError(f"{self.where}: field {prefix}{field} is missing; {PREPARE_AGAIN}")
        for field in sorted(set(value) - expected):
            raise UserError(f"{self.where}: field {prefix}{field:.80} is unknown; {PREPARE_AGAIN}")
        return dict(value)

    def check(self, name: str, value: Any, holds: Any, expected: str) -> None:
        if not holds(value):
            raise UserError(f"{self.where}: {name} is {shown(value)}, expected {expected}; {PREPARE_AGAIN}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_int(value) and 0 < value <= _LARGEST_COUNT


def _is_seed_or_none(value: Any) -> bool:
    return value is None or (_is_int(value) and 0 <= value <= LARGEST_SEED)


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _is_base_name(value: Any) -> bool:
    return is_plain_text(value) and value not in ("", ".", "..") and PurePath(value).name == value


def is_class_names(value: Any) -> bool:
    """Whether a value of a JSON file is a list of at least two different texts that can be printed."""
    return (
        isinstance(value, list)
        and len(value) >= 2
        and all(is_plain_text(name) and name for name in value)
        and len(set(value)) == len(value)
    )


def is_mean(value: Any) -> bool:
    """Whether a value of a JSON file is the mean of three channels, in 0..1."""
    return _is_channels(value, 0.0, 1.0)


def is_std(value: Any) -> bool:
    """Whether a value of a JSON file is the deviation of three channels: above 0, and at most the 0.5 it can be."""
    return _is_channels(value, 1e-9, 0.5)


def _is_channels(value: Any, low: float, high: float) -> bool:
    return (
        isinstance(value, list)
        and len(value) == CHANNELS
        and all(isinstance(x, int | float) and not isinstance(x, bool) for x in value)
        and all(low <= x <= high for x in value)  # which neither NaN nor an infinity is
    )
