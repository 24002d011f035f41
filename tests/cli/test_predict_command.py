"""`fastcifar predict`: images of any size and mode in, classes out, and files that are no images."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastcifar.cli.predict import predict, read_image
from fastcifar.data.prepared import read_split
from fastcifar.runs.load import load_run

Command = Callable[..., Any]


@pytest.fixture(scope="session")
def test_images(small_data: Path) -> tuple[np.ndarray, np.ndarray]:
    return read_split(small_data, "test")


def save(path: Path, image: np.ndarray | Image.Image, **options: Any) -> Path:
    opened = image if isinstance(image, Image.Image) else Image.fromarray(image)
    opened.save(path, **options)
    return path


def test_images_of_the_test_set(
    finished: Any, test_images: tuple[np.ndarray, np.ndarray], tmp_path: Path, command: Command
) -> None:
    images, labels = test_images
    paths = [save(tmp_path / f"{i}.png", image) for i, image in enumerate(images[:40])]
    done = command("predict", *paths, "--run", finished.folder)
    assert (done.code, done.err) == (0, "")
    note, *lines = done.out.splitlines()
    assert note == "note: this run was trained on the synthetic set, not on CIFAR-10"
    assert len(lines) == 40
    expected = predict(load_run(finished.folder), list(images[:40]))
    right = 0
    for path, line, probabilities, label in zip(paths, lines, expected, labels, strict=False):
        best = sorted(probabilities, key=lambda name: -probabilities[name])[:3]
        assert line == f"{path}: " + ", ".join(f"{name} {probabilities[name]:.1%}" for name in best)
        right += best[0] == finished.record["class_names"][label]
    assert right >= 20  # chance is 4, the run's own accuracy 32 or so


def test_probabilities(finished: Any, test_images: tuple[np.ndarray, np.ndarray]) -> None:
    trained = load_run(finished.folder)
    image = test_images[0][0]
    upright, mirrored = predict(trained, [image, np.ascontiguousarray(image[:, ::-1])])
    assert list(upright) == finished.record["class_names"]
    assert sum(upright.values()) == pytest.approx(1)
    assert mirrored == pytest.approx(upright, abs=1e-5)  # both views count, whichever was given


def test_more_than_all_classes(finished: Any, tmp_path: Path, command: Command) -> None:
    path = save(tmp_path / "grey.png", np.full((32, 32, 3), 99, np.uint8))
    line = command("predict", path, "--run", finished.folder, "--top", 99).out.splitlines()[1]
    assert line.count("%") == 10
    line = command("predict", path, "--run", finished.folder, "--top", 1).out.splitlines()[1]
    assert line.count("%") == 1


def colours() -> Image.Image:
    """Red, green, blue and white quarters."""
    image = np.zeros((32, 32, 3), np.uint8)
    image[:16, :16, 0] = image[:16, 16:, 1] = image[16:, :16, 2] = image[16:, 16:] = 255
    return Image.fromarray(image)


def test_a_32_pixel_image_is_taken_as_it_is(tmp_path: Path) -> None:
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


def test_a_image_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # as a camera held sideways says: turn by a quarter to the right
    path = save(tmp_path / "turned.png", colours(), exif=exif)
    np.testing.assert_array_equal(read_image(path), np.rot90(np.asarray(colours()), -1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_modes(mode: str, tmp_path: Path) -> None:
    image = colours().convert(mode)
    expected = image.convert("RGB")
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", image)), np.asarray(expected))


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
    """A PNG that claims a size and holds nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "there is no image {path}"),
        (b"", "{path} is not an image that can be read; use PNG or JPEG"),
        (b"hello", "{path} is not an image that can be read; use PNG or JPEG"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "{path} is not an image that can be read; use PNG or JPEG",
        ),
        (png_of_size(32, 32), "cannot read the image {path}: "),
        (png_of_size(8001, 8000), "{path} is 8001x8000 RGB; scale it below 64,000,000 pixels"),
        (png_of_size(10000, 9500), "{path} is 10000x9500 RGB; scale it below 64,000,000 pixels"),
        (png_of_size(60000, 60000), "cannot read the image {path}: Image size (3600000000 pixels) exceeds limit"),
    ],
    ids=["missing", "empty", "text", "postscript", "cut", "large", "larger", "bomb"],
)
def test_no_image(content: bytes | None, text: str, tmp_path: Path, command: Command) -> None:
    path = tmp_path / "image.png"
    if content is not None:
        path.write_bytes(content)
    assert command("predict", path).refused().startswith(text.format(path=path))


def test_a_cut_jpeg(tmp_path: Path, command: Command) -> None:
    path = save(tmp_path / "a.jpg", Image.effect_noise((90, 90), 60).convert("RGB"))
    path.write_bytes(path.read_bytes()[:1500])
    assert command("predict", path).refused().startswith(f"cannot read the image {path}: image file is truncated")


def test_16_bits_a_channel_would_be_clipped(tmp_path: Path, command: Command) -> None:
    path = save(tmp_path / "deep.png", np.full((40, 32), 30000, np.uint16))
    assert command("predict", path).refused() == (
        f"{path} is 32x40 I;16; images of this mode cannot be converted, save it with 8 bits a channel"
    )


def test_a_folder_is_no_image(tmp_path: Path, command: Command) -> None:
    assert command("predict", tmp_path).refused().startswith(f"cannot read the image {tmp_path}: ")


def test_arguments(tmp_path: Path, command: Command) -> None:
    assert command("predict").refused() == "no image was named; give at least one file"
    assert command("predict", "a.png", "--top", 0).refused() == "top is 0, but must be at least 1"
    path = save(tmp_path / "a.png", colours())
    assert command("predict", path, "--runs", tmp_path).refused() == (
        f"there is no finished run in {tmp_path}; train one with `python -m fastcifar.train`"
    )
