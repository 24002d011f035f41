"""Trees of images, as folders and in archives."""

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image
from raw_files import Files, assert_same_set, png, prefixed, read, small_tree, write_folder, write_tar, write_zip

from fastcifar.data.raw_set import RawSet, content_digest
from fastcifar.errors import UserError


@pytest.mark.parametrize("prefix", ["", "cifar10/"])
def test_image_folder(prefix: str, tree_files: Files, sorted_set: RawSet, tmp_path: Path) -> None:
    raw = read(write_folder(tmp_path, prefixed(tree_files, prefix)))
    assert_same_set(raw, sorted_set)
    assert (raw.source.kind, raw.source.name) == ("image-folder", prefix.strip("/") or tmp_path.name)


@pytest.mark.parametrize(("suffix", "prefix"), [("tar", ""), ("tar.gz", "a/"), ("tar.xz", ""), ("zip", "a/")])
def test_archive_of_an_image_tree(
    suffix: str, prefix: str, tree_files: Files, sorted_set: RawSet, tmp_path: Path
) -> None:
    shuffled = dict(sorted(prefixed(tree_files, prefix).items(), key=lambda item: hash(item[1])))
    write = write_zip if suffix == "zip" else write_tar
    hidden = {"__MACOSX/._x": b"", f"{prefix}.DS_Store": b""}
    assert_same_set(read(write(tmp_path / f"tree.{suffix}", {**shuffled, **hidden})), sorted_set)


def test_content_digest_depends_on_labels_but_not_on_order(small_set: RawSet, sorted_set: RawSet) -> None:
    assert content_digest(small_set) == content_digest(sorted_set)
    small_set.train.labels[0] += 1
    try:
        assert content_digest(small_set) != content_digest(sorted_set)
    finally:
        small_set.train.labels[0] -= 1


def test_jpeg_is_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 10, 10)).save(buffer, "JPEG")
    names = [f"{split}/{name}" for split in ("train", "test") for name in ("a/1.jpg", "b/1.JPEG")]
    raw = read(write_folder(tmp_path, dict.fromkeys(names, buffer.getvalue())))
    assert raw.train.labels.tolist() == [0, 1]
    assert abs(raw.train.images_nhwc[0, 0, 0].astype(int) - [200, 10, 10]).max() < 10


@pytest.mark.parametrize(
    ("colour", "size", "mode"),
    [
        ((1, 2, 3), (28, 30), "RGB"),
        ((7,), (32, 32), "L"),
        ((1, 2, 3, 4), (32, 32), "RGBA"),
        ((3,), (32, 32), "P"),
        ((1,), (64, 64), "1"),
    ],
)
def test_other_images_need_resize(colour: tuple, size: tuple[int, int], mode: str, tmp_path: Path) -> None:
    write_folder(tmp_path, {**small_tree(), "train/cat/0.png": png(colour, size, mode)})
    with pytest.raises(UserError, match=rf"train/cat/0\.png is {size[0]}x{size[1]} {mode}, .*--resize"):
        read(tmp_path)
    assert read(tmp_path, resize=True).train.images_nhwc.shape == (3, 32, 32, 3)


def test_resize_keeps_colours_and_applies_the_exif_rotation(tmp_path: Path) -> None:
    image = Image.new("RGB", (64, 128), (10, 200, 30))
    image.paste((250, 0, 0), (0, 0, 64, 64))  # red above green
    exif = image.getexif()
    exif[0x0112] = 3  # upside down
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif, quality=95)
    write_folder(tmp_path, {**small_tree(png((9, 9, 9), (40, 40))), "train/cat/0.jpg": buffer.getvalue()})
    images = read(tmp_path, resize=True).train.images_nhwc
    assert abs(images[0, 4, 16].astype(int) - [10, 200, 30]).max() < 12  # green is above now
    assert abs(images[0, 28, 16].astype(int) - [250, 0, 0]).max() < 12
    assert (images[1] == 9).all()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        pytest.param(png((4000,), (32, 32), "I;16"), "is 32x32 I;16", id="16-bits-would-be-clipped"),
        pytest.param(png((1,), (9000, 9000), "1"), "is 9000x9000 1", id="enormous"),
        *((png()[:cut], "cannot be decoded") for cut in (0, 1, 40, 70)),
    ],
)
def test_images_that_cannot_be_read(content: bytes, text: str, tmp_path: Path) -> None:
    write_folder(tmp_path, {**small_tree(), "test/dog/1.png": content})
    with pytest.raises(UserError, match=rf"test/dog/1\.png {text}"):
        read(tmp_path, resize=True)


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({**small_tree(), "train/owl/1.png": png()}, "test/owl is missing"),
        ({**small_tree(), "train/owl/1.png": png(), "test/owl/notes.txt": b""}, "test/owl has no"),
        ({"train/cat/a.txt": b"", "test/cat/a.txt": b""}, "no images .*train"),
        ({"train/cat/1.png": png(), "test/cat/1.png": png()}, "only one class, cat"),
        ({**small_tree(prefix="a/"), **small_tree(prefix="b/")}, "more than one tree of images: a, b"),
    ],
)
def test_bad_folder(files: Files, text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=text):
        read(write_folder(tmp_path, files))


def test_bad_archive(tmp_path: Path) -> None:
    two = write_tar(tmp_path / "two.tar", {**small_tree(prefix="a/"), **small_tree(prefix="b/")})
    with pytest.raises(UserError, match="more than one tree of images: a/train, b/train"):
        read(two)
    with pytest.raises(UserError, match=r"train/cat/1\.png occurs twice"):
        read(write_tar(tmp_path / "twice.tar", small_tree(), tarfile.TarInfo("./train/cat/1.png")))
    folders = [tarfile.TarInfo(f"{split}/owl") for split in ("train", "test")]
    for folder in folders:
        folder.type = tarfile.DIRTYPE
    with pytest.raises(UserError, match="train/owl has no"):
        read(write_tar(tmp_path / "empty.tar", small_tree(), *folders))


def test_other_files_are_skipped_and_counted(tmp_path: Path) -> None:
    raw = read(write_folder(tmp_path, {**small_tree(), "train/cat/a.gif": b"GIF", "train/cat/.b.png": b""}))
    assert len(raw.train) == 2
    assert len(raw.notes) == 1
    assert "skipped 1 files" in raw.notes[0]


@pytest.mark.parametrize(("folder", "shown"), [("\x1b[2J", r"\\x1b\[2J"), ("\udcff", r"\\udcff"), ("a\nb", r"a\\nb")])
def test_names_that_cannot_be_printed(folder: str, shown: str, tmp_path: Path) -> None:
    files = {name.replace("cat", folder): content for name, content in small_tree().items()}
    with pytest.raises(UserError, match=f"name '{shown}' .*not printable"):
        read(write_tar(tmp_path / "names.tar", files))
    with pytest.raises(UserError, match=r"name 'new\\nline\.tar' .*not printable"):
        read(write_tar(tmp_path / "new\nline.tar", small_tree()))
