"""Prepares a folder: finds the source, skips the work if the folder is up to date, and locks it meanwhile."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock

from fastcifar.data.beton_set import finish_commit, write_set
from fastcifar.data.checks import checked_beton
from fastcifar.data.cifar10 import CONTENT_SHA256, MIRRORS, PYTHON_ARCHIVE, TEST_SAMPLES, TRAIN_SAMPLES, Archive
from fastcifar.data.download import DownloadError, MirrorLimits, download_set
from fastcifar.data.manifest import MANIFEST_NAME, Manifest, load_manifest
from fastcifar.data.raw_set import SPLITS, RawSet, content_digest, hold_out, mark_held_out
from fastcifar.data.sources.detect import Source, find_in_folder, open_source
from fastcifar.data.sources.synthetic import synthetic_set
from fastcifar.errors import UserError

LOCK_NAME = ".lock"
SYNTHETIC = "synthetic"


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What to prepare, as in `fastcifar.cli.prepare.Options`; `mirrors` and `limits` configure the download."""

    out: Path
    source: str | None = None
    force: bool = False
    resize: bool = False
    url: str | None = None
    or_synthetic: bool = False
    synthetic_train: int = TRAIN_SAMPLES
    synthetic_test: int = TEST_SAMPLES
    seed: int = 0
    hold_out: int = 0
    mirrors: Sequence[tuple[str, Archive]] = MIRRORS
    limits: MirrorLimits | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The manifest of the prepared folder, whether this call wrote it, and notes about the source."""

    manifest: Manifest
    written: bool
    notes: tuple[str, ...] = ()


def prepare(request: Request) -> Outcome:
    """Prepares `request.out` unless it already holds the requested set; one process at a time per folder.

    Raises UserError for a bad source, RunFailedError (DownloadError) if the download, the disk or the writer fails.
    The folder is then unchanged.
    """
    if request.hold_out < 0:
        raise UserError(f"--hold-out is {request.hold_out}, expected at least 0")
    if request.out.exists() and not request.out.is_dir():
        raise UserError(f"--out {request.out} is a file, expected a folder")
    request.out.mkdir(parents=True, exist_ok=True)
    with _locked(request.out):
        if finish_commit(request.out):
            _say(f"finished an interrupted commit to {request.out}")
        if not request.force:
            _check_hold_out(request)
        existing = None if request.force else _existing(request.out)
        if request.source == SYNTHETIC:
            return _synthetic(request, existing)
        if request.source:
            return _from_source(request, open_source(Path(request.source).expanduser()), existing)
        return _without_source(request, existing)


def _check_hold_out(request: Request) -> None:
    """UserError if the folder holds a set with another hold-out, even a damaged one. It is not lost by accident."""
    try:
        held_out = load_manifest(request.out).source.held_out
    except UserError:
        return
    if held_out != request.hold_out:
        raise UserError(
            f"{request.out} holds a set with {held_out} train samples held out, but --hold-out is {request.hold_out}; "
            f"use --hold-out {held_out} to keep it, --out for another folder, or --force to replace it"
        )


def _synthetic(request: Request, existing: Manifest | None) -> Outcome:
    if existing is not None and existing.source.kind == "synthetic" and existing.source.seed == request.seed:
        held_out = request.hold_out
        wanted = {"train": request.synthetic_train - held_out, "test": held_out or request.synthetic_test}
        if all(existing.splits[split].samples == wanted[split] for split in SPLITS):
            return Outcome(manifest=existing, written=False)
    return _write(request, synthetic_set(request.synthetic_train, request.synthetic_test, request.seed))


def _from_source(request: Request, source: Source, existing: Manifest | None) -> Outcome:
    if existing is not None and existing.source.checksum == mark_held_out(source.checksum, request.hold_out):
        return Outcome(manifest=existing, written=False)
    return _write(request, source.read(request.resize))


def _without_source(request: Request, existing: Manifest | None) -> Outcome:
    fallback = existing is not None and existing.dataset == "synthetic" and request.or_synthetic
    if existing is not None and not fallback:
        return Outcome(manifest=existing, written=False)
    found = find_in_folder(request.out)
    if found is not None:
        return _from_source(request, found, existing)
    try:
        return _write(request, _download(request))
    except DownloadError as error:
        if not request.or_synthetic or _may_hold_real_data(request.out):
            raise
        _say(f"{error}. Using the synthetic set because of --or-synthetic; this is NOT CIFAR-10")
        return _synthetic(request, existing)


def _download(request: Request) -> RawSet:
    first = [(request.url, PYTHON_ARCHIVE)] if request.url else []

    def read(path: Path, archive: Archive) -> RawSet:
        raw = open_source(path).read(resize=False)
        if archive.md5 is None and content_digest(raw) != CONTENT_SHA256:
            raise UserError("its images are not those of CIFAR-10")
        return raw

    return download_set([*first, *request.mirrors], request.out, read, request.limits)


def _write(request: Request, raw: RawSet) -> Outcome:
    return Outcome(manifest=write_set(hold_out(raw, request.hold_out), request.out), written=True, notes=raw.notes)


def _existing(out: Path) -> Manifest | None:
    """The manifest of the set in `out` if it passes all checks, else None. Prints why a damaged one fails."""
    if not (out / MANIFEST_NAME).exists():
        return None
    try:
        for split in SPLITS:
            checked_beton(out, split)
        return load_manifest(out)
    except UserError as error:
        _say(f"preparing again: {error}")
        return None


def _may_hold_real_data(out: Path) -> bool:
    """Whether `out` holds a set, even a damaged one, that is not known to be synthetic."""
    if not any((out / name).exists() for name in (MANIFEST_NAME, *(f"{split}.beton" for split in SPLITS))):
        return False
    try:
        return load_manifest(out).dataset != "synthetic"
    except UserError:
        return True


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    lock = filelock.FileLock(out / LOCK_NAME)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        _say(f"another process is preparing {out}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
