"""`fastcifar prepare`: converts CIFAR-10 from any source to train.beton, test.beton and manifest.json."""

import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from fastcifar.cli.parsing import parse
from fastcifar.data.cifar10 import TEST_SAMPLES, TRAIN_SAMPLES
from fastcifar.data.manifest import Manifest
from fastcifar.errors import UserError

SOURCE_VARIABLE = "FASTCIFAR_SOURCE"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Find or download CIFAR-10, check it, and write train.beton, test.beton and manifest.json.

    The source is recognised by its content. It can be
    - cifar-10-python.tar.gz or cifar-10-binary.tar.gz, packed or unpacked;
    - images as train/<class>/*.png and test/<class>/*.png (or .jpg), in a folder, .tar, .tar.gz, .tar.xz or .zip;
    - the word synthetic, for a generated set of ten shapes.

    Without --source and without the environment variable FASTCIFAR_SOURCE, the command uses the archive or images it
    finds in the output folder, or else downloads CIFAR-10. If the folder already holds the requested set, nothing is
    written. If the command fails, the folder keeps its previous content.
    """

    source: Annotated[
        str | None,
        tyro.conf.arg(metavar="PATH", help_behavior_hint="(default: the environment variable FASTCIFAR_SOURCE)"),
    ] = field(default_factory=lambda: os.environ.get(SOURCE_VARIABLE) or None)
    """Archive or folder to read, or the word synthetic."""
    out: Path = Path("data")
    """Folder to write to. A downloaded archive is kept there as well."""
    force: bool = False
    """Write the set again, also over one with other held-out samples."""
    verify: bool = False
    """Prepare nothing; check the SHA-256 of both beton files and read them."""
    resize: bool = False
    """Convert images that are not 32x32 RGB, instead of refusing them. The aspect ratio is not kept."""
    url: Annotated[str | None, tyro.conf.arg(metavar="URL", help_behavior_hint="(default: none)")] = None
    """Mirror of cifar-10-python.tar.gz to try before the built-in ones. The official checksum is required."""
    or_synthetic: bool = False
    """Prepare the synthetic set if no source is given and the download fails. Never replaces real data."""
    synthetic_train: int = TRAIN_SAMPLES
    """Number of training images in the synthetic set."""
    synthetic_test: int = TEST_SAMPLES
    """Number of test images in the synthetic set."""
    seed: int = 0
    """Seed of the synthetic set. The same seed gives the same bytes."""
    hold_out: int = 0
    """Use N training images as the test set instead of the real one, to choose settings without the test set."""


def main(arguments: list[str]) -> None:
    """Raises UserError and RunFailedError."""
    options = parse(Options, arguments, prog="fastcifar prepare", config=(tyro.conf.FlagCreatePairsOff,))
    request = asdict(options)
    if request.pop("verify"):
        _verify(options)
        return

    from fastcifar.data.preparation import Request, prepare

    started = time.monotonic()
    outcome = prepare(Request(**request))
    for note in outcome.notes:
        print(f"note: {note}")
    print(summary(outcome.manifest, options.out))
    if outcome.written:
        print(f"done in {time.monotonic() - started:.1f} s")
    else:
        print("already prepared, nothing written (--force writes it again)")


def _verify(options: Options) -> None:
    from fastcifar.data.prepared import verify

    if options.force or options.hold_out:
        flag = "--force" if options.force else "--hold-out"
        raise UserError(f"--verify only checks the prepared data and cannot be combined with {flag}")
    manifest = verify(options.out)
    print(summary(manifest, options.out))
    for info in manifest.splits.values():
        print(f"{options.out / info.file} is intact, SHA-256 {info.sha256}")


def summary(manifest: Manifest, out: Path) -> str:
    """The prepared set in three lines."""
    train, test = (manifest.splits[split].samples for split in ("train", "test"))
    names = manifest.class_names
    classes = ", ".join(names if len(names) <= 10 else [*names[:9], "..."])
    kind = "held-out" if manifest.source.held_out else "test"
    mean, std = (" ".join(f"{value:.4f}" for value in values) for values in (manifest.mean_01, manifest.std_01))
    return (
        f"{manifest.dataset} in {out}: {train} train and {test} {kind} images, from {manifest.source.name}\n"
        f"{len(names)} classes: {classes}\n"
        f"mean {mean}  std {std}  (R G B, values from 0 to 1)"
    )
