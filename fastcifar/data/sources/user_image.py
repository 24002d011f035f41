"""Reads an image file of any size as a 32x32 RGB image, for predictions."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fastcifar.data.cifar10 import IMAGE_SIZE
from fastcifar.data.sources.image_file import MAX_PIXELS, MAX_SCANS, MODES, START_OF_SCAN
from fastcifar.errors import UserError

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""File formats that hold nothing but pixels. For PostScript, Pillow would start Ghostscript."""


def read_image(path: Path) -> np.ndarray:
    """The central square of an image file, scaled to uint8 (32, 32, 3) RGB. Raises UserError for any other file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about large and odd images; _check refuses what is unsafe
            with Image.open(path, formats=FORMATS) as image:
                _check(path, image)
                upright = ImageOps.exif_transpose(image)
                if "transparency" in upright.info:
                    upright = upright.convert("RGBA")
                upright = upright.convert("RGB")
        size = (IMAGE_SIZE, IMAGE_SIZE)
        return np.asarray(upright if upright.size == size else ImageOps.fit(upright, size, Image.Resampling.BOX))
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"there is no image {path}") from None
    except UnidentifiedImageError:
        raise UserError(f"{path} is not an image in a supported format; use PNG or JPEG") from None
    except Exception as error:  # noqa: BLE001  (a damaged file makes Pillow's decoders raise almost anything)
        raise UserError(f"cannot read the image {path}: {error or type(error).__name__}") from None


def _check(path: Path, image: Image.Image) -> None:
    """Raises UserError, before anything is decoded, for images that would take too much memory or time."""
    found = f"{path} is {image.width}x{image.height} {image.mode}"
    if image.width * image.height > MAX_PIXELS:
        raise UserError(f"{found}; scale it below {MAX_PIXELS:,} pixels")
    if image.format == "JPEG" and path.read_bytes().count(START_OF_SCAN) > MAX_SCANS:
        raise UserError(f"{path} is a JPEG of more than {MAX_SCANS} scans; save it again")
    if image.mode not in MODES:
        raise UserError(f"{found}; this pixel format cannot be converted, save it with 8 bits per channel")
