"""`fastcifar predict PICTURE...`: what a finished run sees in the user's own pictures."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from fastcifar.cli.parsing import parse
from fastcifar.errors import UserError

LARGEST_PICTURE = 64_000_000
"""Pixels; more is refused before it is decoded, as a small file can hold a picture that fills the memory."""
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
"""What Pillow converts to RGB faithfully; 16-bit modes it would clip."""
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Of all that Pillow reads, what holds nothing but pixels: for PostScript it would start Ghostscript."""


@dataclass(frozen=True, kw_only=True)
class PredictArguments:
    """Name the likeliest classes of pictures, with their probabilities.

    A picture of any size is cut to its central square and scaled to 32 pixels, then normalised as in training.
    """

    pictures: tyro.conf.Positional[tuple[Path, ...]]
    """Picture files (PNG, JPEG, ...)."""
    run: str = "latest"
    """Folder of the run, its name inside --runs, or "latest"."""
    runs: Path = Path("runs")
    """Folder in which runs are looked up."""
    top: int = 3
    """How many classes to name."""


def main(arguments: list[str]) -> None:
    """Parses, predicts, prints. Raises UserError."""
    options = parse(PredictArguments, arguments, prog="fastcifar predict")
    if not options.pictures:
        raise UserError("no picture was named; give at least one file")
    if options.top < 1:
        raise UserError(f"top is {options.top}, but must be at least 1")
    pictures = [read_picture(path) for path in options.pictures]

    from fastcifar.runs.load import load_bundle
    from fastcifar.runs.record import find_run

    bundle = load_bundle(find_run(options.run, options.runs))
    if bundle.record["dataset"] == "synthetic":
        print("note: this run was trained on the synthetic set, not on CIFAR-10")
    for path, probabilities in zip(options.pictures, predict(bundle, pictures), strict=True):
        best = sorted(probabilities.items(), key=lambda item: -item[1])[: options.top]
        print(f"{path}: " + ", ".join(f"{name} {probability:.1%}" for name, probability in best))


def read_picture(path: Path) -> Any:
    """uint8 (32, 32, 3), RGB: the central square of a picture file, scaled. Raises UserError for any other file."""
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large and of odd pictures, which are refused below or harmless
            with Image.open(path, formats=FORMATS) as picture:
                _check(path, picture)
                upright = ImageOps.exif_transpose(picture)
                if "transparency" in upright.info:
                    upright = upright.convert("RGBA")
                upright = upright.convert("RGB")
        if upright.size != (32, 32):
            upright = ImageOps.fit(upright, (32, 32), Image.Resampling.BOX)
        return np.asarray(upright)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"there is no picture {path}") from None
    except UnidentifiedImageError:
        raise UserError(f"{path} is not a picture that can be read; use PNG or JPEG") from None
    except Exception as error:  # noqa: BLE001  (a damaged file makes Pillow's decoders raise almost anything)
        raise UserError(f"cannot read the picture {path}: {error or type(error).__name__}") from None


def _check(path: Path, picture: Any) -> None:
    from fastcifar.data.sources.image_file import MAX_SCANS, START_OF_SCAN

    found = f"{path} is {picture.width}x{picture.height} {picture.mode}"
    if picture.width * picture.height > LARGEST_PICTURE:
        raise UserError(f"{found}; scale it below {LARGEST_PICTURE:,} pixels")
    if picture.format == "JPEG" and path.read_bytes().count(START_OF_SCAN) > MAX_SCANS:
        raise UserError(f"{path} is a JPEG of more than {MAX_SCANS} scans; save it again")
    if picture.mode not in MODES:
        raise UserError(f"{found}; pictures of this mode cannot be converted, save it with 8 bits a channel")


def predict(bundle: Any, pictures: list[Any]) -> list[dict[str, float]]:
    """Class probabilities of each picture, uint8 (32, 32, 3), from the mean logits of it and its mirror image."""
    import numpy as np
    import torch

    images, rows = np.stack(pictures), np.arange(len(pictures))
    tensor = bundle.transform()(images, rows, rows, 0)
    with torch.inference_mode():
        logits = (bundle.model(tensor) + bundle.model(tensor.flip(3))) / 2
    return [dict(zip(bundle.class_names, row.tolist(), strict=True)) for row in logits.softmax(1)]
