"""What a prepare does: nothing when nothing is to be done, and never a set that was not asked for."""

import hashlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import filelock
import pytest

from fastcifar.data import preparation
from fastcifar.data.cifar10 import Archive
from fastcifar.data.download import DownloadError
from fastcifar.data.preparation import Outcome, Request, prepare
from fastcifar.data.prepared import RawSet, read_split
from fastcifar.errors import UserError

pytestmark = pytest.mark.usefixtures("quick_writer")
DEAD = (("http://127.0.0.1:9/cifar-10-python.tar.gz", Archive(name="a.tar.gz", md5="0", size=1)),)
Files = dict[str, bytes]


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    return Request(out=tmp_path / "out", mirrors=DEAD, synthetic_train=40, synthetic_test=20)


@pytest.fixture
def tree(tree_files: Files, write_folder: Callable, tmp_path: Path) -> Path:
    return write_folder(tmp_path / "tree", tree_files)


def stamp(out: Path) -> dict[str, int]:
    return {name: (out / name).stat().st_mtime_ns for name in ("train.beton", "test.beton", "manifest.json")}


def assert_no_op(request: Request, dataset: str) -> None:
    before = stamp(request.out)
    outcome = prepare(request)
    assert (outcome.written, outcome.manifest.dataset) == (False, dataset)
    assert stamp(request.out) == before


def test_a_second_prepare_does_nothing(request_: Request, tree: Path) -> None:
    request = replace(request_, source=str(tree))
    assert prepare(request).written
    assert_no_op(request, "custom")
    assert_no_op(request_, "custom")  # without a source, what is there is good
    assert prepare(replace(request, force=True)).written
    assert prepare(replace(request, source="synthetic")).written
    assert prepare(request).written


def test_held_out_samples_of_a_folder_are_not_read_again(request_: Request, tree: Path, make_png: Callable) -> None:
    request = replace(request_, source=str(tree), hold_out=2)
    assert prepare(request).manifest.splits["test"].samples == 2
    assert_no_op(request, "custom")
    next((tree / "train").rglob("*.png")).write_bytes(make_png((7, 7, 7)))
    assert prepare(request).written


def test_a_changed_source_is_prepared_again(request_: Request, tree: Path, make_png: Callable) -> None:
    request = replace(request_, source=str(tree))
    prepare(request)
    next((tree / "train").rglob("*.png")).write_bytes(make_png((7, 7, 7)))
    assert prepare(request).written


def test_an_archive_is_recognised_by_its_checksum(
    request_: Request, tree_files: Files, write_tar: Callable, tmp_path: Path
) -> None:
    first = write_tar(tmp_path / "a.tar", tree_files, "w")
    prepare(replace(request_, source=str(first)))
    assert_no_op(replace(request_, source=str(first.rename(tmp_path / "b.tar"))), "custom")


def test_synthetic(request_: Request) -> None:
    request = replace(request_, source="synthetic")
    outcome = prepare(request)
    assert (outcome.manifest.dataset, outcome.manifest.source.kind, outcome.manifest.source.seed) == (
        "synthetic",
    ) * 2 + (0,)
    assert_no_op(request, "synthetic")
    assert prepare(replace(request, seed=1)).written
    assert prepare(replace(request, seed=1, synthetic_train=41)).written


def test_damage_is_repaired(request_: Request, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = replace(request_, source=str(tree))
    prepare(request)
    path = request.out / "train.beton"
    sound = path.read_bytes()
    path.write_bytes(sound[:-1] + b"x")
    assert prepare(request).written
    assert path.read_bytes() == sound
    assert "preparing again: " in capsys.readouterr().err
    (request.out / "manifest.json").write_text("{}")
    assert prepare(request).written


def test_two_prepares_give_the_same_bytes(request_: Request, tree: Path, tmp_path: Path) -> None:
    outs = [tmp_path / "one", tmp_path / "two"]
    for out in outs:
        prepare(replace(request_, source=str(tree), out=out))
    for name in ("train.beton", "test.beton", "manifest.json"):
        assert len({(out / name).read_bytes() for out in outs}) == 1, name


def test_an_archive_in_the_folder_is_found(
    request_: Request, python_files: Files, write_folder: Callable, sorted_set: RawSet
) -> None:
    write_folder(request_.out / "cifar-10-batches-py", python_files)
    outcome = prepare(request_)
    assert (outcome.manifest.dataset, outcome.manifest.source.name) == ("custom", "cifar-10-batches-py")


def test_a_failed_download_says_so_and_changes_nothing(request_: Request) -> None:
    with pytest.raises(DownloadError, match=r"could not be downloaded; tried http://127\.0\.0\.1:9/"):
        prepare(request_)
    assert {path.name for path in request_.out.iterdir()} <= {".lock"}


def test_url_is_tried_first(request_: Request) -> None:
    with pytest.raises(DownloadError, match=r"tried http://127\.0\.0\.1:9/mine: .*; http://127\.0\.0\.1:9/cifar"):
        prepare(replace(request_, url="http://127.0.0.1:9/mine"))


def test_download_and_prepare(request_: Request, python_files: Files, write_tar: Callable, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    content = write_tar(tmp_path / "served" / "set.tar.gz", python_files).read_bytes()
    archive = Archive(name="set.tar.gz", md5=hashlib.md5(content).hexdigest(), size=len(content))

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments, directory=str(tmp_path / "served"))

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/set.tar.gz"
            # the archive without a checksum is whole and readable, but not CIFAR-10: the next mirror is used
            mirrors = ((url, replace(archive, name="tree.tgz", md5=None, size=None)), (url, archive))
            outcome = prepare(replace(request_, mirrors=mirrors))
        finally:
            server.shutdown()
            thread.join()
    assert (outcome.written, outcome.manifest.source.kind, outcome.manifest.source.name) == (
        True,
        "cifar-python",
        "set.tar.gz",
    )
    assert (request_.out / "set.tar.gz").read_bytes() == content
    assert not (request_.out / "tree.tgz").exists()


# ---- --or-synthetic


def test_fallback_only_when_asked(request_: Request, capsys: pytest.CaptureFixture[str]) -> None:
    request = replace(request_, or_synthetic=True)
    outcome = prepare(request)
    assert (outcome.written, outcome.manifest.dataset) == (True, "synthetic")
    shown = capsys.readouterr().err
    assert "could not be downloaded" in shown
    assert "this is NOT CIFAR-10" in shown
    assert_no_op(request, "synthetic")
    assert "could not be downloaded" in capsys.readouterr().err  # the download was tried again
    assert_no_op(request_, "synthetic")


def test_fallback_never_for_a_named_source(request_: Request, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        prepare(replace(request_, source=str(tmp_path / "nowhere"), or_synthetic=True))


def test_fallback_never_replaces_real_data(request_: Request, tree: Path) -> None:
    prepare(replace(request_, source=str(tree)))
    request = replace(request_, or_synthetic=True)
    assert_no_op(request, "custom")
    before = stamp(request.out)
    with pytest.raises(DownloadError):
        prepare(replace(request, force=True))
    assert stamp(request.out) == before
    for damage in ("test.beton", "manifest.json"):
        (request.out / damage).write_bytes(b"{}")
        with pytest.raises(DownloadError):
            prepare(request)
        assert (request.out / damage).read_bytes() == b"{}"


# ---- the folder


def test_one_at_a_time(request_: Request, capsys: pytest.CaptureFixture[str]) -> None:
    request = replace(request_, source="synthetic")
    request.out.mkdir()
    outcomes: list[Outcome] = []
    with filelock.FileLock(request.out / preparation.LOCK_NAME):
        thread = threading.Thread(target=lambda: outcomes.append(prepare(request)))
        thread.start()
        time.sleep(0.5)
        assert outcomes == []
    thread.join(20)
    assert outcomes[0].written
    assert f"another process is preparing {request.out}; waiting for it" in capsys.readouterr().err


def test_out_is_a_file(request_: Request) -> None:
    request_.out.write_text("")
    with pytest.raises(UserError, match=r"--out .*/out is a file, expected a folder"):
        prepare(request_)


def test_a_bad_source_leaves_the_folder_as_it_was(request_: Request, tree: Path, tmp_path: Path) -> None:
    prepare(replace(request_, source="synthetic"))
    before = stamp(request_.out)
    (tree / "train" / "ring" / "0001.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="cannot be decoded"):
        prepare(replace(request_, source=str(tree)))
    assert stamp(request_.out) == before
    assert len(read_split(request_.out, "train")[1]) == 40


def test_an_interrupted_move_is_finished(request_: Request, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(replace(request_, source="synthetic"))
    commit = request_.out / ".commit"
    commit.mkdir()
    for name in ("test.beton", "manifest.json"):
        (request_.out / name).rename(commit / name)
    assert_written = prepare(request_)
    assert not assert_written.written
    assert "finished moving a set" in capsys.readouterr().err
    assert json.loads((request_.out / "manifest.json").read_text())["dataset"] == "synthetic"
