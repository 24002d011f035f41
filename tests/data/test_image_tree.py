"""Trees of images, as folders and in archives."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from fastcifar.data.prepared import RawSet
from fastcifar.data.raw_set import content_digest
from fastcifar.data.sources.detect import open_source
from fastcifar.errors import UserError

Files = dict[str, bytes]
Check = Callable[[RawSet, RawSet], None]


def read(path: Path, resize: bool = False) -> RawSet:
    return open_source(path).read(resize)


def prefixed(files: Files, prefix: str) -> Files:
    return {f"{prefix}{name}": content for name, content in files.items()}


# ---- trees of images


@pytest.mark.parametrize("prefix", ["", "cifar10/"])
def test_image_folder(
    prefix: str, tree_files: Files, sorted_set: RawSet, same_set: Check, write_folder: Callable, tmp_path: Path
) -> None:
    write_folder(tmp_path, prefixed(tree_files, prefix))
    raw = read(tmp_path)
    same_set(raw, sorted_set)
    assert raw.source.kind == "image-folder"
    assert raw.source.name == (prefix.strip("/") or tmp_path.name)


@pytest.mark.parametrize("prefix", ["", "cifar10/"])
@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.xz", "zip"])
def test_archive_of_an_image_folder(
    prefix, kind, tree_files, sorted_set, same_set: Check, write_tar: Callable, write_zip: Callable, tmp_path: Path
) -> None:
    shuffled = dict(sorted(prefixed(tree_files, prefix).items(), key=lambda item: hash(item[1])))
    path = tmp_path / f"tree.{kind}"
    if kind == "zip":
        write_zip(path, {**shuffled, "__MACOSX/._x": b"", f"{prefix}.DS_Store": b""})
    else:
        write_tar(path, shuffled, {"tar": "w", "tar.gz": "w:gz", "tar.xz": "w:xz"}[kind])
    same_set(read(path), sorted_set)


def test_the_order_of_samples_does_not_change_the_content(small_set: RawSet, sorted_set: RawSet) -> None:
    assert content_digest(small_set) == content_digest(sorted_set)
    small_set.train.labels[0] += 1
    try:
        assert content_digest(small_set) != content_digest(sorted_set)
    finally:
        small_set.train.labels[0] -= 1


def test_jpeg_is_read(write_folder: Callable, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 10, 10)).save(buffer, "JPEG")
    names = [
        f"{split}/{name}/1.{suffix}" for split in ("train", "test") for name, suffix in (("a", "jpg"), ("b", "JPEG"))
    ]
    raw = read(write_folder(tmp_path, dict.fromkeys(names, buffer.getvalue())))
    assert raw.train.labels.tolist() == [0, 1]
    assert abs(raw.train.images_nhwc[0, 0, 0].astype(int) - [200, 10, 10]).max() < 10


def small_tree(image: bytes) -> Files:
    return {f"{split}/{name}/1.png": image for split in ("train", "test") for name in ("cat", "dog")}


OTHER_IMAGES = [
    ((1, 2, 3), (28, 30), "RGB", "is 28x30 RGB, expected 32x32 RGB; --resize converts such images"),
    ((7,), (32, 32), "L", "is 32x32 L, expected 32x32 RGB"),
    ((1, 2, 3, 4), (32, 32), "RGBA", "is 32x32 RGBA, expected"),
    ((3,), (32, 32), "P", "is 32x32 P, expected"),
    ((1,), (64, 64), "1", "is 64x64 1, expected"),
]


@pytest.mark.parametrize(("colour", "size", "mode", "text"), OTHER_IMAGES)
def test_other_images_need_resize(
    colour, size, mode: str, text: str, make_png: Callable, write_folder: Callable, tmp_path: Path
) -> None:
    files = {**small_tree(make_png()), "train/cat/0.png": make_png(colour, size, mode)}
    write_folder(tmp_path, files)
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    assert "train/cat/0.png" in str(caught.value)
    assert text in str(caught.value)
    assert read(tmp_path, resize=True).train.images_nhwc.shape == (3, 32, 32, 3)


def test_resize_keeps_the_colour_and_turns_upright(make_png: Callable, write_folder: Callable, tmp_path: Path) -> None:
    image = Image.new("RGB", (64, 128), (10, 200, 30))
    image.paste((250, 0, 0), (0, 0, 64, 64))  # red above green
    exif = image.getexif()
    exif[0x0112] = 3  # upside down
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif, quality=95)
    write_folder(tmp_path, {**small_tree(make_png((9, 9, 9), (40, 40))), "train/cat/0.jpg": buffer.getvalue()})
    images = read(tmp_path, resize=True).train.images_nhwc
    assert abs(images[0, 4, 16].astype(int) - [10, 200, 30]).max() < 12  # green is above now
    assert abs(images[0, 28, 16].astype(int) - [250, 0, 0]).max() < 12
    assert (images[1] == 9).all()


def test_sixteen_bits_are_not_clipped(make_png: Callable, write_folder: Callable, tmp_path: Path) -> None:
    write_folder(tmp_path, {**small_tree(make_png()), "train/cat/0.png": make_png((4000,), (32, 32), "I;16")})
    with pytest.raises(UserError, match="32x32 I;16; images of this mode cannot be converted"):
        read(tmp_path, resize=True)


def test_enormous_image(make_png: Callable, write_folder: Callable, tmp_path: Path) -> None:
    write_folder(tmp_path, {**small_tree(make_png()), "train/cat/0.png": make_png((1,), (9000, 9000), "1")})
    with pytest.raises(UserError, match="9000x9000 1, more than 64 million pixels"):
        read(tmp_path, resize=True)


@pytest.mark.parametrize("cut", [0, 1, 40, 70])
def test_unreadable_image(cut: int, make_png: Callable, write_folder: Callable, tmp_path: Path) -> None:
    write_folder(tmp_path, {**small_tree(make_png()), "test/dog/1.png": make_png()[:cut]})
    with pytest.raises(UserError, match=r"test/dog/1\.png cannot be decoded: "):
        read(tmp_path)


def test_class_missing_in_one_split(make_png: Callable, write_folder: Callable, tmp_path: Path) -> None:
    write_folder(tmp_path, {**small_tree(make_png()), "train/owl/1.png": make_png()})
    with pytest.raises(UserError, match="class folder test/owl is missing, train/owl is there"):
        read(tmp_path)


def test_empty_class(make_png: Callable, write_folder: Callable, tmp_path: Path) -> None:
    write_folder(tmp_path, {**small_tree(make_png()), "train/owl/1.png": make_png(), "test/owl/notes.txt": b""})
    with pytest.raises(UserError, match="class folder test/owl is empty"):
        read(tmp_path)


def test_empty_class_of_an_archive(make_png: Callable, write_tar: Callable, tmp_path: Path) -> None:
    folders = []
    for split in ("train", "test"):
        folders.append(tarfile.TarInfo(f"{split}/owl"))
        folders[-1].type = tarfile.DIRTYPE
    path = write_tar(tmp_path / "t.tar", small_tree(make_png()), "w", tuple(folders))
    with pytest.raises(UserError, match="class folder train/owl is empty"):
        read(path)


def test_no_images(write_folder: Callable, tmp_path: Path) -> None:
    write_folder(tmp_path, {"train/cat/a.txt": b"", "test/cat/a.txt": b""})
    with pytest.raises(UserError, match=r"no images \(png, jpg, jpeg\) in train/<class>/"):
        read(tmp_path)


def test_one_class(make_png: Callable, write_folder: Callable, tmp_path: Path) -> None:
    write_folder(tmp_path, {"train/cat/1.png": make_png(), "test/cat/1.png": make_png()})
    with pytest.raises(UserError, match="one class only, cat"):
        read(tmp_path)


def test_other_files_are_left_out_and_counted(make_png: Callable, write_folder: Callable, tmp_path: Path) -> None:
    raw = read(write_folder(tmp_path, {**small_tree(make_png()), "train/cat/a.gif": b"GIF", "train/cat/.b.png": b""}))
    assert len(raw.train) == 2
    assert raw.notes == ("left out 1 files that are not PNG or JPEG",)


@pytest.mark.parametrize(("folder", "shown"), [("\x1b[2J", r"\\x1b\[2J"), ("\udcff", r"\\udcff"), ("a\nb", r"a\\nb")])
def test_names_that_cannot_be_printed(
    folder: str, shown: str, make_png: Callable, write_tar: Callable, tmp_path: Path
) -> None:
    files = {f"{split}/{name}/1.png": make_png() for split in ("train", "test") for name in (folder, "b")}
    with pytest.raises(UserError, match=rf"the class name '{shown}' has characters that cannot be printed; rename it"):
        open_source(write_tar(tmp_path / "names.tar", files, "w")).read(False)
    files = {name.replace(folder, "a"): content for name, content in files.items()}
    with pytest.raises(UserError, match=r"the source's name 'new\\nline\.tar' has characters that cannot be printed"):
        open_source(write_tar(tmp_path / "new\nline.tar", files, "w")).read(False)


def test_two_trees(make_png: Callable, write_folder: Callable, write_tar: Callable, tmp_path: Path) -> None:
    files = {**prefixed(small_tree(make_png()), "a/"), **prefixed(small_tree(make_png()), "b/")}
    with pytest.raises(UserError, match="more than one tree of images: a, b"):
        read(write_folder(tmp_path / "f", files))
    with pytest.raises(UserError, match="more than one tree of images: a/train, b/train; name one of them"):
        read(write_tar(tmp_path / "t.tar.gz", files))


def test_twice_in_an_archive(make_png: Callable, write_tar: Callable, tmp_path: Path) -> None:
    again = tarfile.TarInfo("./train/cat/1.png")
    with pytest.raises(UserError, match=r"train/cat/1\.png is there twice"):
        read(write_tar(tmp_path / "t.tar", small_tree(make_png()), "w", (again,)))
