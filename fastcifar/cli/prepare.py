"""`fastcifar prepare`: from CIFAR-10 in any form to train.beton, test.beton and manifest.json, once."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from fastcifar.cli.parsing import parse
from fastcifar.data.cifar10 import TEST_SAMPLES, TRAIN_SAMPLES
from fastcifar.data.manifest import Manifest
from fastcifar.errors import UserError

PROGRAM = "fastcifar prepare"
SOURCE_VARIABLE = "FASTCIFAR_SOURCE"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Prepares CIFAR-10: finds or downloads it, checks it, writes train.beton, test.beton and manifest.json.

    Sources, recognised by their content: cifar-10-python.tar.gz, cifar-10-binary.tar.gz, one of them unpacked, or
    images as train/<class>/*.png and test/<class>/*.png (also .jpg), as a folder, .tar, .tar.gz, .tar.xz or .zip; or
    the word synthetic for ten procedural shapes. Without --source and FASTCIFAR_SOURCE: what lies in the output folder,
    else a download. Nothing is done when the folder already holds the wanted set; a failed run leaves it as it was.
    """

    source: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = field(
        default_factory=lambda: os.environ.get(SOURCE_VARIABLE) or None
    )
    """Archive or folder to read, or the word synthetic; default: the environment variable FASTCIFAR_SOURCE."""
    out: Path = Path("data")
    """Folder the set is written to; a download is kept there too."""
    force: bool = False
    """Write again even if the folder already holds the wanted set, or one with other samples held out."""
    verify: bool = False
    """Only check: recompute the SHA-256 of both betons and read them; prepares nothing."""
    resize: bool = False
    """Convert images that are not 32x32 RGB instead of refusing them; the aspect ratio is not kept."""
    url: Annotated[str | None, tyro.conf.arg(metavar="URL")] = None
    """A mirror of cifar-10-python.tar.gz to try before the known ones; its checksum must be the official one."""
    or_synthetic: bool = False
    """If no source is named and the download fails, prepare the synthetic set; never replaces real data."""
    synthetic_train: int = TRAIN_SAMPLES
    """Train samples of the synthetic set."""
    synthetic_test: int = TEST_SAMPLES
    """Test samples of the synthetic set."""
    seed: int = 0
    """Seed of the synthetic set: same seed, same bytes."""
    hold_out: int = 0
    """Leave the test split out and put so many train samples, held out, in its place: to choose settings by."""
    debug: bool = False
    """Show where an error came from."""


def main(arguments: list[str]) -> None:
    """Parses the arguments, prepares or verifies, prints a summary; errors as `run_command` expects them."""
    options = parse(Options, arguments, prog=PROGRAM, config=(tyro.conf.FlagCreatePairsOff,))
    started = time.monotonic()
    if options.verify:
        _verify(options)
        return
    from fastcifar.data.preparation import Request, prepare

    outcome = prepare(
        Request(
            out=options.out,
            source=options.source,
            force=options.force,
            resize=options.resize,
            url=options.url,
            or_synthetic=options.or_synthetic,
            synthetic_train=options.synthetic_train,
            synthetic_test=options.synthetic_test,
            seed=options.seed,
            hold_out=options.hold_out,
        )
    )
    for note in outcome.notes:
        print(f"note: {note}")
    print(_summary(outcome.manifest, options.out))
    seconds = time.monotonic() - started
    print(f"done in {seconds:.1f} s" if outcome.written else "already there, nothing to do (--force writes it again)")


def _verify(options: Options) -> None:
    from fastcifar.data.prepared import verify

    if options.force:
        raise UserError("--verify only checks; leave out --force, or run it first")
    if options.hold_out:
        raise UserError("--verify only checks; leave out --hold-out")
    manifest = verify(options.out)
    print(_summary(manifest, options.out))
    for split, info in manifest.splits.items():
        print(f"{split}: {options.out / info.file} is sound, SHA-256 {info.sha256}")


def _summary(manifest: Manifest, out: Path) -> str:
    train, test = (manifest.splits[split].samples for split in ("train", "test"))
    names = manifest.class_names
    classes = ", ".join(names if len(names) <= 10 else [*names[:9], "..."])
    kind = "held-out" if manifest.source.held_out else "test"
    return "\n".join(
        [
            f"{manifest.dataset} in {out}: {train} train and {test} {kind} images, from {manifest.source.name}",
            f"{len(names)} classes: {classes}",
            f"mean {_channels(manifest.mean_01)}  std {_channels(manifest.std_01)}  (0..1, red green blue)",
        ]
    )


def _channels(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4f}" for value in values)
