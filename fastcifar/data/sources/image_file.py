"""Decodes one PNG or JPEG file to 32x32 RGB pixels. The files are not trusted."""

import io
import warnings
import zlib

from PIL import Image, ImageOps, UnidentifiedImageError

from fastcifar.data.cifar10 import IMAGE_SIZE
from fastcifar.errors import MALFORMED, UserError, reason

SUFFIXES = (".png", ".jpg", ".jpeg")
MAX_PIXELS = 64_000_000  # of an image to be resized; large cameras stay below, decompression bombs do not
START_OF_SCAN = b"\xff\xda"
MAX_SCANS = 100  # of a progressive JPEG, which has about ten; each is a pass over all pixels
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # convertible; 16-bit modes would be clipped
_MALFORMED = (zlib.error, Image.DecompressionBombError, *MALFORMED)


def decode(name: str, content: bytes, resize: bool) -> bytes:
    """The pixels of a PNG or JPEG file: 32 * 32 * 3 bytes, rows from the top, RGB.

    Without `resize`, only 32x32 RGB images are accepted. With it, images of any size and of 8-bit modes are rotated as
    their EXIF says, converted to RGB and scaled (bilinear, antialiased, without keeping the aspect ratio). UserError
    names `name`, and the size and mode of an image that is not accepted.
    """
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image,
        ):
            if image.format == "JPEG" and content.count(START_OF_SCAN) > MAX_SCANS:
                raise UserError(f"{name} is a JPEG of more than {MAX_SCANS} scans")
            if image.mode != "RGB" or image.size != (IMAGE_SIZE, IMAGE_SIZE):
                _check(name, image, resize)
                image = _converted(image)
            return image.tobytes()
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(f"{name} cannot be decoded: not a PNG or JPEG file") from None
    except _MALFORMED as error:
        raise UserError(f"{name} cannot be decoded: {reason(error)}") from None


def _check(name: str, image: Image.Image, resize: bool) -> None:
    found = f"{image.width}x{image.height} {image.mode}"
    if not resize:
        raise UserError(f"{name} is {found}, expected 32x32 RGB; use --resize to convert such images")
    if image.mode not in MODES:
        raise UserError(f"{name} is {found}; this mode cannot be converted; save them with 8 bits per channel")
    if image.width * image.height > MAX_PIXELS:
        raise UserError(f"{name} is {found}, more than {MAX_PIXELS // 1_000_000} million pixels")


def _converted(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
