"""Archives that are cut short, lead outside, hold links or are decompression bombs."""

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_files import Files, read, write_tar, write_zip

from fastcifar.data.sources import members
from fastcifar.errors import UserError

EITHER = pytest.mark.parametrize("write", [write_tar, write_zip])


def archive(write: Callable[..., Path], folder: Path, files: Files) -> Path:
    return write(folder / ("mine.zip" if write is write_zip else "mine.tar.gz"), files)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.xz", "zip"])
@pytest.mark.parametrize("keep", [0.2, 0.999])
def test_truncated_archive(suffix: str, keep: float, python_files: Files, tmp_path: Path) -> None:
    write = write_zip if suffix == "zip" else write_tar
    path = write(tmp_path / f"cut.{suffix}", python_files)
    content = path.read_bytes().rstrip(b"\0") if suffix == "tar" else path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(UserError, match=rf"cut\.{suffix} .*cut short"):
        read(path)


def test_tar_cut_between_two_members(tree_files: Files, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "cut.tar", tree_files)
    with tarfile.open(path) as tar:
        ends = [member.offset for member in tar.getmembers()]
    path.write_bytes(path.read_bytes()[: ends[-3]])
    with pytest.raises(UserError, match="cut short"):
        read(path)


@EITHER
@pytest.mark.parametrize("name", ["../evil.png", "train/../../evil.png", "/etc/passwd", "C:\\cat\\1.png", "..\\x"])
def test_names_that_lead_out(name: str, write: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"refused member .*leads out"):
        read(archive(write, tmp_path, {name: b"x"}))


@pytest.mark.parametrize("kind", ["SYMTYPE", "LNKTYPE", "CHRTYPE", "BLKTYPE", "FIFOTYPE"])
def test_links_and_devices(kind: str, tmp_path: Path) -> None:
    info = tarfile.TarInfo("train/cat/1.png")
    info.type, info.linkname = getattr(tarfile, kind), "/etc/passwd"
    text = "link" if kind in ("SYMTYPE", "LNKTYPE") else "not a regular file"
    with pytest.raises(UserError, match=rf"refused member 'train/cat/1\.png': .*{text}"):
        read(write_tar(tmp_path / "links.tar.gz", {}, info))


def test_link_in_a_zip(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("train/cat/1.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "links.zip", "w") as file:
        file.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match=r"'train/cat/1\.png': .*link"):
        read(tmp_path / "links.zip")


@EITHER
def test_bomb_in_one_member(write: Callable[..., Path], tmp_path: Path) -> None:
    path = archive(write, tmp_path, {"train/cat/1.png": bytes((64 << 20) + 1)})
    assert path.stat().st_size < 1 << 20
    with pytest.raises(UserError, match="67108865 bytes"):
        read(path)


@EITHER
def test_bomb_of_many_members(write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MAX_TOTAL_BYTES", 1 << 24)
    with pytest.raises(UserError, match="when unpacked"):
        read(archive(write, tmp_path, {f"x{index}": bytes(1 << 20) for index in range(20)}))


def test_bomb_in_a_header(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a")
    info.pax_headers = {"comment": "x" * (2 << 20)}  # tarfile writes PAX headers by default
    with pytest.raises(UserError, match=r"header of \d+ bytes"):
        read(write_tar(tmp_path / "header.tar.gz", {}, info))


def test_headers_within_headers(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x" * 300)
    path = tmp_path / "long.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT)[:1024] * 500)  # the header of a long name describes the next one
    with pytest.raises(UserError, match=r"long\.tar .*recursion"):
        read(path)


def test_encrypted_zip(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "secret.zip", {"train/cat/1.png": b"x"})
    content = bytearray(path.read_bytes())
    for signature, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(signature) + at] |= 1  # the flag that says so
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"secret\.zip .*password"):
        read(path)


def test_nothing_is_unpacked_to_disk(python_files: Files, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "mine.tar.gz", python_files)
    read(path)
    assert list(tmp_path.iterdir()) == [path]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_damaged_archive_is_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    buffer = io.BytesIO()
    kind = data.draw(st.sampled_from(["tar", "gz", "zip"]))
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("train/cat/readme", b"hello " * 50)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz" if kind == "gz" else "w", format=tarfile.PAX_FORMAT) as tar:
            info = tarfile.TarInfo("train/cat/readme" + "x" * 120)
            info.size = 300
            tar.addfile(info, io.BytesIO(b"hello " * 50))
    content = bytearray(buffer.getvalue())
    end = len(content) if kind != "tar" else 3000
    for position in data.draw(st.lists(st.integers(4, end - 1), min_size=1, max_size=4)):
        content[min(position, len(content) - 1)] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged-archive"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:  # it holds no image, so it is refused even if it can be read
        read(path)
    assert "\n" not in str(caught.value)
