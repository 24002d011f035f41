"""Image files of any size and pixel format as 32x32 RGB, and files that are refused."""

import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastcifar.data.sources.user_image import read_image
from fastcifar.errors import UserError


def save(path: Path, image: np.ndarray | Image.Image, **options: Any) -> Path:
    opened = image if isinstance(image, Image.Image) else Image.fromarray(image)
    opened.save(path, **options)
    return path


def colours() -> Image.Image:
    """Red, green, blue and white quarters."""
    image = np.zeros((32, 32, 3), np.uint8)
    image[:16, :16, 0] = image[:16, 16:, 1] = image[16:, :16, 2] = image[16:, 16:] = 255
    return Image.fromarray(image)


def test_a_32_pixel_image_is_unchanged(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", noise)), noise)


def test_the_central_square_is_scaled(tmp_path: Path) -> None:
    wide = Image.new("RGB", (200, 64), (9, 9, 9))
    wide.paste(colours().resize((64, 64), Image.Resampling.NEAREST), (68, 0))
    np.testing.assert_array_equal(read_image(save(tmp_path / "wide.png", wide)), np.asarray(colours()))
    tall = wide.transpose(Image.Transpose.TRANSPOSE)
    turned = colours().transpose(Image.Transpose.TRANSPOSE)
    np.testing.assert_array_equal(read_image(save(tmp_path / "tall.png", tall)), np.asarray(turned))
    assert (read_image(save(tmp_path / "dot.png", Image.new("RGB", (1, 1), (1, 2, 3)))) == [1, 2, 3]).all()


def test_the_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    path = save(tmp_path / "turned.png", colours(), exif=exif)
    np.testing.assert_array_equal(read_image(path), np.rot90(np.asarray(colours()), -1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_pixel_formats(mode: str, tmp_path: Path) -> None:
    image = colours().convert(mode)
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", image)), np.asarray(image.convert("RGB")))


def test_a_palette_with_transparency(tmp_path: Path) -> None:
    palette = colours().convert("P")
    path = save(tmp_path / "a.png", palette, transparency=bytes([0, 128, 255]))
    np.testing.assert_array_equal(read_image(path), np.asarray(palette.convert("RGB")))


def test_cmyk(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", colours().convert("CMYK"), quality=100, subsampling=0)
    assert abs(read_image(path).astype(int) - np.asarray(colours())).max() < 12


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (None, ""),
        (b"", ""),
        (b"hello", ""),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "supported"),
        (png_of_size(32, 32), ""),
        (png_of_size(8001, 8000), "8001x8000"),
        (png_of_size(60000, 60000), "3600000000"),
        (b"\xff\xd8" + bytes(99), ""),
    ],
    ids=["missing", "empty", "text", "postscript", "without pixels", "large", "bomb", "cut jpeg"],
)
def test_a_file_that_is_refused(content: bytes | None, shown: str, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(str(path))) as caught:
        read_image(path)
    assert shown in str(caught.value)


def test_other_images_that_are_refused(tmp_path: Path) -> None:
    deep = save(tmp_path / "deep.png", np.full((40, 32), 30000, np.uint16))
    with pytest.raises(UserError, match="32x40 I;16"):  # 16 bits would be clipped
        read_image(deep)
    cut = save(tmp_path / "a.jpg", Image.effect_noise((90, 90), 60).convert("RGB"))
    cut.write_bytes(cut.read_bytes()[:1500])
    for path in (cut, tmp_path):
        with pytest.raises(UserError, match=re.escape(str(path))):
            read_image(path)
