"""`manifest.json`: what a prepared folder holds, where it came from, and the checksums of its files."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any, Literal, get_args

from fastcifar.config.schema import LARGEST_SEED
from fastcifar.data.cifar10 import CHANNELS
from fastcifar.data.raw_set import SOURCE_KINDS, SPLITS, SourceInfo, is_plain_text
from fastcifar.errors import UserError, shown
from fastcifar.files import read_at_most, write_json

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1
PREPARE_AGAIN = "run `fastcifar prepare --force`"
DatasetKind = Literal["cifar10", "synthetic", "custom"]
DATASETS: tuple[DatasetKind, ...] = get_args(DatasetKind)
_MAX_BYTES = 4 << 20  # of the manifest: with a thousand classes it has some 20 kB
_LARGEST_COUNT = 1 << 48  # bytes or samples: more than any disk holds, and no overflow in int64 arithmetic
_SHA256 = re.compile(r"[0-9a-f]{64}")
Rules = dict[str, tuple[Callable[[Any], bool], str]]
"""For each field of a JSON object: whether a value is valid, and what is expected in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitInfo:
    """One beton: its name in the folder, its SHA-256, its size in bytes and its number of samples."""

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
    dataset: DatasetKind
    class_names: tuple[str, ...]
    mean_01: tuple[float, ...]
    std_01: tuple[float, ...]
    splits: dict[str, SplitInfo]
    source: SourceInfo
    content_sha256: str
    fastcifar_version: str


def load_manifest(folder: Path) -> Manifest:
    """Reads and checks `folder/manifest.json`.

    Raises UserError if it is missing, not JSON, or has a field that is missing, unknown or out of range. The error
    names the field and the value.
    """
    path = folder / MANIFEST_NAME
    try:
        content = read_at_most(path, _MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"no prepared data in {folder}: {path} is missing; run `fastcifar prepare`") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); {PREPARE_AGAIN}") from None
    return _parsed(path, value)


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes `folder/manifest.json` atomically."""
    write_json(folder / MANIFEST_NAME, asdict(manifest))


def _parsed(path: Path, value: Any) -> Manifest:
    fields = _checked(path, "", value, _manifest_rules())
    splits = {name: _checked(path, f"splits.{name}", fields["splits"][name], _split_rules(name)) for name in SPLITS}
    fields |= {
        "class_names": tuple(fields["class_names"]),
        "mean_01": tuple(float(x) for x in fields["mean_01"]),
        "std_01": tuple(float(x) for x in fields["std_01"]),
        "splits": {name: SplitInfo(**split) for name, split in splits.items()},
        "source": SourceInfo(**_checked(path, "source", fields["source"], _source_rules())),
    }
    return Manifest(**fields)


def _checked(path: Path, name: str, value: Any, rules: Rules) -> dict[str, Any]:
    """A copy of the JSON object `value`, called `name`. Raises UserError unless it has the fields of `rules`."""
    prefix = f"{name}." if name else ""
    if not isinstance(value, dict):
        raise UserError(f"{path}: {name or 'the whole file'} is {shown(value)}, expected an object; {PREPARE_AGAIN}")
    for field in sorted(rules.keys() ^ value.keys()):
        problem = "missing" if field in rules else "unknown"
        raise UserError(f"{path}: field {prefix}{field:.80} is {problem}; {PREPARE_AGAIN}")
    for field, (is_valid, expected) in rules.items():
        if not is_valid(value[field]):
            found = shown(value[field])
            raise UserError(f"{path}: {prefix}{field} is {found}, expected {expected}; {PREPARE_AGAIN}")
    return dict(value)


def _manifest_rules() -> Rules:
    return {
        "format_version": (lambda v: v == FORMAT_VERSION, f"{FORMAT_VERSION}"),
        "dataset": (lambda v: v in DATASETS, f"one of {', '.join(DATASETS)}"),
        "class_names": (is_class_names, "a list of at least two different names"),
        "mean_01": (is_mean, "three numbers in 0..1"),
        "std_01": (is_std, "three numbers above 0 and up to 0.5"),
        "splits": (lambda v: isinstance(v, dict) and set(v) == set(SPLITS), "the keys train and test"),
        "source": (lambda v: isinstance(v, dict), "an object"),
        "content_sha256": (_is_sha256, "64 hexadecimal digits"),
        "fastcifar_version": (is_plain_text, "text"),
    }


def _split_rules(name: str) -> Rules:
    count = (_is_count, "a whole number above 0, at most 2**48")
    return {
        "file": (lambda v: v == f"{name}.beton", f"{name}.beton"),
        "sha256": (_is_sha256, "64 hexadecimal digits"),
        "bytes": count,
        "samples": count,
    }


def _source_rules() -> Rules:
    return {
        "kind": (lambda v: v in SOURCE_KINDS, f"one of {', '.join(SOURCE_KINDS)}"),
        "name": (_is_base_name, "a file name without a folder"),
        "checksum": (lambda v: v is None or isinstance(v, str), "text or null"),
        "seed": (_is_seed_or_none, "a whole number in 0..2**63-1 or null"),
    }


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
    """Whether a value of a JSON file is a list of at least two different, non-empty, printable strings."""
    return (
        isinstance(value, list)
        and len(value) >= 2
        and all(is_plain_text(name) and name for name in value)
        and len(set(value)) == len(value)
    )


def is_mean(value: Any) -> bool:
    """Whether a value of a JSON file is a mean per channel, in 0..1."""
    return _is_channels(value, 0.0, 1.0)


def is_std(value: Any) -> bool:
    """Whether a value of a JSON file is a standard deviation per channel: above 0, and at most 0.5."""
    return _is_channels(value, 1e-9, 0.5)


def _is_channels(value: Any, low: float, high: float) -> bool:
    return (
        isinstance(value, list)
        and len(value) == CHANNELS
        and all(isinstance(x, int | float) and not isinstance(x, bool) for x in value)
        and all(low <= x <= high for x in value)  # excludes NaN and infinities
    )
