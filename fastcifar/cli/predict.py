"""`fastcifar predict IMAGE...`: what a finished run sees in the user's own images."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from fastcifar.cli.parsing import parse
from fastcifar.errors import UserError

LARGEST_IMAGE = 64_000_000
"""Pixels; more is refused before it is decoded, as a small file can hold an image that fills the memory."""
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
"""What Pillow converts to RGB faithfully; 16-bit modes it would clip."""
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Of all that Pillow reads, what holds nothing but pixels: for PostScript it would start Ghostscript."""


@dataclass(frozen=True, kw_only=True)
class PredictArguments:
    """Name the likeliest classes of images, with their probabilities.

    An image of any size is cut to its central square and scaled to 32 pixels, then normalised as in training.
    """

    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files (PNG, JPEG, ...)."""
    run: str = "latest"
    """Folder of the run, its name inside --runs, or "latest"."""
    runs: Path = Path("runs")
    """Folder in which runs are looked up."""
    top: int = 3
    """How many classes to name."""


def main(arguments: list[str]) -> None:
    """Parses, predicts, prints. Raises UserError."""
    options = parse(PredictArguments, arguments, prog="fastcifar predict")
    if not options.images:
        raise UserError("no image was named; give at least one file")
    if options.top < 1:
        raise UserError(f"top is {options.top}, but must be at least 1")
    decoded = [read_image(path) for path in options.images]

    from fastcifar.runs.load import load_run
    from fastcifar.runs.record import find_run

    trained = load_run(find_run(options.run, options.runs))
    if trained.record["dataset"] == "synthetic":
        print("note: this run was trained on the synthetic set, not on CIFAR-10")
    for path, probabilities in zip(options.images, predict(trained, decoded), strict=True):
        best = sorted(probabilities.items(), key=lambda item: -item[1])[: options.top]
        print(f"{path}: " + ", ".join(f"{name} {probability:.1%}" for name, probability in best))


def read_image(path: Path) -> Any:
    """uint8 (32, 32, 3), RGB: the central square of an image file, scaled. Raises UserError for any other file."""
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large and of odd images, which are refused below or harmless
            with Image.open(path, formats=FORMATS) as image:
                _check(path, image)
                upright = ImageOps.exif_transpose(image)
                if "transparency" in upright.info:
                    upright = upright.convert("RGBA")
                upright = upright.convert("RGB")
        if upright.size != (32, 32):
            upright = ImageOps.fit(upright, (32, 32), Image.Resampling.BOX)
        return np.asarray(upright)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"there is no image {path}") from None
    except UnidentifiedImageError:
        raise UserError(f"{path} is not an image that can be read; use PNG or JPEG") from None
    except Exception as error:  # noqa: BLE001  (a damaged file makes Pillow's decoders raise almost anything)
        raise UserError(f"cannot read the image {path}: {error or type(error).__name__}") from None


def _check(path: Path, image: Any) -> None:
    from fastcifar.data.sources.image_file import MAX_SCANS, START_OF_SCAN

    found = f"{path} is {image.width}x{image.height} {image.mode}"
    if image.width * image.height > LARGEST_IMAGE:
        raise UserError(f"{found}; scale it below {LARGEST_IMAGE:,} pixels")
    if image.format == "JPEG" and path.read_bytes().count(START_OF_SCAN) > MAX_SCANS:
        raise UserError(f"{path} is a JPEG of more than {MAX_SCANS} scans; save it again")
    if image.mode not in MODES:
        raise UserError(f"{found}; images of this mode cannot be converted, save it with 8 bits a channel")


def predict(trained: Any, decoded: list[Any]) -> list[dict[str, float]]:
    """Class probabilities of each image, uint8 (32, 32, 3), from the mean logits of it and its mirror image."""
    import numpy as np
    import torch

    images, rows = np.stack(decoded), np.arange(len(decoded))
    tensor = trained.transform()(images, rows, rows, 0)
    with torch.inference_mode():
        logits = (trained.model(tensor) + trained.model(tensor.flip(3))) / 2
    return [dict(zip(trained.class_names, row.tolist(), strict=True)) for row in logits.softmax(1)]
