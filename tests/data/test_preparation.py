"""`prepare` skips a folder that is up to date, and never writes a set that was not requested."""

import hashlib
import threading
import time
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import filelock
import pytest
from raw_files import Files, png, write_folder, write_tar

from fastcifar.data import preparation
from fastcifar.data.cifar10 import Archive
from fastcifar.data.download import DownloadError
from fastcifar.data.preparation import Outcome, Request, prepare
from fastcifar.data.prepared import read_split
from fastcifar.errors import UserError

pytestmark = pytest.mark.usefixtures("quick_writer")
DEAD = (("http://127.0.0.1:9/cifar-10-python.tar.gz", Archive(name="a.tar.gz", md5="0", size=1)),)
FILES = ("train.beton", "test.beton", "manifest.json")


@pytest.fixture
def no_source(tmp_path: Path) -> Request:
    return Request(out=tmp_path / "out", mirrors=DEAD, synthetic_train=40, synthetic_test=20)


@pytest.fixture
def synthetic(no_source: Request) -> Request:
    return replace(no_source, source="synthetic")


@pytest.fixture
def tree(no_source: Request, tree_files: Files, tmp_path: Path) -> Request:
    return replace(no_source, source=str(write_folder(tmp_path / "tree", tree_files)))


def change_an_image(tree: Request, content: bytes) -> None:
    (Path(str(tree.source)) / "train" / "ring" / "0006.png").write_bytes(content)


def stamps(out: Path) -> list[int]:
    return [(out / name).stat().st_mtime_ns for name in FILES]


def assert_no_op(request: Request, dataset: str) -> None:
    before = stamps(request.out)
    outcome = prepare(request)
    assert (outcome.written, outcome.manifest.dataset) == (False, dataset)
    assert stamps(request.out) == before


def test_a_folder_that_is_up_to_date_is_skipped(no_source: Request, tree: Request, synthetic: Request) -> None:
    assert prepare(tree).written
    assert_no_op(tree, "custom")
    assert_no_op(no_source, "custom")  # without a source, any set is accepted
    assert prepare(replace(tree, force=True)).written
    assert prepare(synthetic).written
    assert prepare(tree).written


@pytest.mark.parametrize("held_out", [0, 2])
def test_a_changed_source_is_prepared_again(held_out: int, tree: Request) -> None:
    request = replace(tree, hold_out=held_out)
    assert prepare(request).manifest.splits["test"].samples == (held_out or 50)
    assert_no_op(request, "custom")
    change_an_image(tree, png((7, 7, 7)))
    assert prepare(request).written


def test_an_archive_is_recognised_by_its_checksum(no_source: Request, tree_files: Files, tmp_path: Path) -> None:
    first = write_tar(tmp_path / "a.tar", tree_files)
    prepare(replace(no_source, source=str(first)))
    assert_no_op(replace(no_source, source=str(first.rename(tmp_path / "b.tar"))), "custom")


def test_synthetic(synthetic: Request) -> None:
    manifest = prepare(synthetic).manifest
    assert (manifest.dataset, manifest.source.kind, manifest.source.seed) == ("synthetic", "synthetic", 0)
    assert_no_op(synthetic, "synthetic")
    assert prepare(replace(synthetic, seed=1)).written
    assert prepare(replace(synthetic, seed=1, synthetic_train=41)).written


def test_damage_is_repaired(synthetic: Request, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(synthetic)
    path = synthetic.out / "train.beton"
    sound = path.read_bytes()
    path.write_bytes(sound[:-1] + b"x")
    assert prepare(synthetic).written
    assert path.read_bytes() == sound
    assert "train.beton" in capsys.readouterr().err
    (synthetic.out / "manifest.json").write_text("{}")
    assert prepare(synthetic).written


def test_two_prepares_give_the_same_bytes(tree: Request, tmp_path: Path) -> None:
    other = replace(tree, out=tmp_path / "other")
    prepare(tree)
    prepare(other)
    for name in FILES:
        assert (tree.out / name).read_bytes() == (other.out / name).read_bytes(), name


def test_a_set_in_the_output_folder_is_found(no_source: Request, python_files: Files) -> None:
    write_folder(no_source.out / "cifar-10-batches-py", python_files)
    manifest = prepare(no_source).manifest
    assert (manifest.dataset, manifest.source.name) == ("custom", "cifar-10-batches-py")


def test_a_failed_download_changes_nothing(no_source: Request) -> None:
    with pytest.raises(DownloadError, match=r"http://127\.0\.0\.1:9/mine.*; http://127\.0\.0\.1:9/cifar"):
        prepare(replace(no_source, url="http://127.0.0.1:9/mine"))  # --url is tried first
    assert {path.name for path in no_source.out.iterdir()} <= {".lock"}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def test_download_and_prepare(no_source: Request, python_files: Files, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    content = write_tar(tmp_path / "served" / "set.tar.gz", python_files).read_bytes()
    archive = Archive(name="set.tar.gz", md5=hashlib.md5(content).hexdigest(), size=len(content))
    handler = partial(Quiet, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/set.tar.gz"
            # The archive without a checksum can be read but is not CIFAR-10, so the next mirror is tried.
            mirrors = ((url, replace(archive, name="tree.tgz", md5=None, size=None)), (url, archive))
            outcome = prepare(replace(no_source, mirrors=mirrors))
        finally:
            server.shutdown()
            thread.join()
    assert outcome.written
    assert (outcome.manifest.source.kind, outcome.manifest.source.name) == ("cifar-python", "set.tar.gz")
    assert (no_source.out / "set.tar.gz").read_bytes() == content
    assert not (no_source.out / "tree.tgz").exists()


def test_synthetic_fallback_only_when_requested(
    no_source: Request, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = replace(no_source, or_synthetic=True)
    outcome = prepare(request)
    assert (outcome.written, outcome.manifest.dataset) == (True, "synthetic")
    assert "NOT CIFAR-10" in capsys.readouterr().err
    assert_no_op(request, "synthetic")
    assert "NOT CIFAR-10" in capsys.readouterr().err  # the download was tried again
    assert_no_op(no_source, "synthetic")
    with pytest.raises(UserError, match="nowhere"):
        prepare(replace(request, source=str(tmp_path / "nowhere")))


def test_synthetic_fallback_never_replaces_real_data(no_source: Request, tree: Request) -> None:
    prepare(tree)
    request = replace(no_source, or_synthetic=True)
    assert_no_op(request, "custom")
    before = stamps(request.out)
    with pytest.raises(DownloadError):
        prepare(replace(request, force=True))
    assert stamps(request.out) == before
    for damaged in ("test.beton", "manifest.json"):
        (request.out / damaged).write_bytes(b"{}")
        with pytest.raises(DownloadError):
            prepare(request)
        assert (request.out / damaged).read_bytes() == b"{}"


def test_one_process_at_a_time(synthetic: Request, capsys: pytest.CaptureFixture[str]) -> None:
    synthetic.out.mkdir()
    outcomes: list[Outcome] = []
    with filelock.FileLock(synthetic.out / preparation.LOCK_NAME):
        thread = threading.Thread(target=lambda: outcomes.append(prepare(synthetic)))
        thread.start()
        printed = ""
        while str(synthetic.out) not in printed:  # it says that it waits
            time.sleep(0.01)
            printed += capsys.readouterr().err
        assert outcomes == []
    thread.join()
    assert outcomes[0].written


def test_out_is_a_file(no_source: Request) -> None:
    no_source.out.write_text("")
    with pytest.raises(UserError, match=r"--out .*/out"):
        prepare(no_source)


def test_a_bad_source_leaves_the_folder_unchanged(synthetic: Request, tree: Request) -> None:
    prepare(synthetic)
    before = stamps(synthetic.out)
    change_an_image(tree, b"no image")
    with pytest.raises(UserError, match=r"0006\.png"):
        prepare(tree)
    assert stamps(synthetic.out) == before
    assert len(read_split(synthetic.out, "train")[1]) == 40


def test_an_interrupted_commit_is_finished(synthetic: Request) -> None:
    prepare(synthetic)
    commit = synthetic.out / ".commit"
    commit.mkdir()
    for name in ("test.beton", "manifest.json"):
        (synthetic.out / name).rename(commit / name)
    assert not prepare(synthetic).written
    assert (len(read_split(synthetic.out, "test")[1]), commit.exists()) == (20, False)
