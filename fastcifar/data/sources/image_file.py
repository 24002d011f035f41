"""One PNG or JPEG image as 32x32 RGB pixels."""

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator

from PIL import Image, ImageOps

from fastcifar.data.cifar10 import IMAGE_SIZE
from fastcifar.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg")
MAX_PIXELS = 64_000_000  # of an image to be resized: what a large camera makes; a bomb asks for more
START_OF_SCAN = b"\xff\xda"
MAX_SCANS = 100  # of a progressive JPEG, which has about ten; every one of them is a pass over all pixels
_CONVERTIBLE = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # 16-bit modes would be clipped, not scaled
_UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def decode(name: str, content: bytes, resize: bool) -> bytes:
    """The pixels of a PNG or JPEG file: 32 * 32 * 3 bytes, rows from the top, RGB.

    With `resize`, images of any size and the usual modes are turned upright, converted to RGB and scaled (bilinear,
    over the whole area when they shrink; the aspect ratio is not kept). Raises UserError with `name`, the size and the
    mode for anything but a 32x32 RGB image without `resize`, and for one that cannot be decoded.
    """
    try:
        with _quietly(), Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            if image.format == "JPEG" and content.count(START_OF_SCAN) > MAX_SCANS:
                raise UserError(f"{name} is a JPEG of more than {MAX_SCANS} scans")
            plain = image.mode == "RGB" and image.size == (IMAGE_SIZE, IMAGE_SIZE)
            if not plain:
                _check(name, image, resize)
                image = _converted(image)
            return image.tobytes()
    except UserError:
        raise
    except _UNREADABLE as error:
        reason = " ".join(str(error).replace(repr(error), "").split()) or type(error).__name__
        reason = "not a PNG or JPEG file" if "cannot identify" in reason else reason
        raise UserError(f"{name} cannot be decoded: {reason}") from None


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without Pillow's warnings of images that are odd, but can be decoded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _check(name: str, image: Image.Image, resize: bool) -> None:
    found = f"{image.width}x{image.height} {image.mode}"
    if not resize:
        raise UserError(f"{name} is {found}, expected 32x32 RGB; --resize converts such images")
    if image.mode not in _CONVERTIBLE:
        raise UserError(f"{name} is {found}; images of this mode cannot be converted, save them with 8 bits")
    if image.width * image.height > MAX_PIXELS:
        raise UserError(f"{name} is {found}, more than {MAX_PIXELS // 1_000_000} million pixels")


def _converted(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
