"""The download, from a local server that fails in every way that real mirrors do."""

import hashlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from fastcifar.data.cifar10 import Archive
from fastcifar.data.download import DownloadError, MirrorLimits, download_set
from fastcifar.data.raw_set import RawSet
from fastcifar.errors import RunFailedError, UserError

CONTENT = np.random.default_rng(0).bytes(300_000)
ARCHIVE = Archive(name="set.tar.gz", md5=hashlib.md5(CONTENT).hexdigest(), size=len(CONTENT))
PATIENT = MirrorLimits(answer_s=60.0, silence_s=60.0, window_s=60.0)
IMPATIENT = replace(PATIENT, min_bytes_per_s=1_000_000, window_s=0.2)


STOP = threading.Event()  # ends the handlers that stay silent


class Server(BaseHTTPRequestHandler):
    """The path selects how the server behaves."""

    requests: list[tuple[str, str | None]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        behaviour, asked = self.path.strip("/"), self.headers.get("Range")
        self.requests.append((behaviour, asked))
        if behaviour == "404":
            self.send_error(404)
            return
        if behaviour == "mute":
            STOP.wait()
            return
        content = bytes(len(CONTENT)) if behaviour == "corrupt" else CONTENT
        content = content + b"x" if behaviour == "other-size" else content
        start = int(asked[6:-1]) if asked and behaviour != "no-range" else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            shown = 5 if behaviour == "wrong-range" else start
            self.send_header("Content-Range", f"bytes {shown}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.send_body(behaviour, content[start:])

    def send_body(self, behaviour: str, body: bytes) -> None:
        if behaviour == "short":
            body = body[: len(body) // 2]
        step = 20_000 if behaviour in ("slow", "silent") else len(body)
        for position in range(0, len(body), step):
            try:
                self.wfile.write(body[position : position + step])
            except OSError:
                return
            if behaviour == "slow":
                time.sleep(0.1)
            elif behaviour == "silent":
                STOP.wait()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    STOP.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def no_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    Server.requests.clear()
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def dead() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/dead"


class Fetcher:
    """Downloads from mirrors of ARCHIVE and keeps the content that was read."""

    def __init__(self, folder: Path, raw: RawSet) -> None:
        self.folder, self.raw, self.seen = folder, raw, b""

    def __call__(self, *urls: str, archive: Archive = ARCHIVE, limits: MirrorLimits = PATIENT) -> RawSet:
        def read(path: Path, archive: Archive) -> RawSet:
            self.seen = path.read_bytes()
            if self.seen == bytes(len(CONTENT)):
                raise UserError("these are not the images")
            return self.raw

        return download_set([(url, archive) for url in urls], self.folder, read, limits)


@pytest.fixture
def fetch(tmp_path: Path, small_set: RawSet) -> Fetcher:
    return Fetcher(tmp_path, small_set)


def test_download(fetch: Fetcher, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch(f"{address}/good") is fetch.raw
    assert fetch.seen == CONTENT
    assert [path.name for path in fetch.folder.iterdir()] == ["set.tar.gz"]
    assert "set.tar.gz from 127.0.0.1" in capsys.readouterr().err


@pytest.mark.parametrize("behaviour", ["good", "no-range"])
def test_an_unfinished_file_is_resumed(behaviour: str, fetch: Fetcher, address: str) -> None:
    for mirror in ("short", "wrong-range"):
        with pytest.raises(DownloadError, match="150000"):
            fetch(f"{address}/{mirror}")
        assert (fetch.folder / "set.tar.gz.part").stat().st_size == 150_000
    fetch(f"{address}/{behaviour}")
    assert fetch.seen == CONTENT
    assert Server.requests[-1] == (behaviour, "bytes=150000-")


def test_the_next_mirror_resumes(fetch: Fetcher, address: str, dead: str) -> None:
    fetch(dead, f"{address}/404", f"{address}/short", f"{address}/good")
    assert fetch.seen == CONTENT
    assert Server.requests == [("404", None), ("short", None), ("good", "bytes=150000-")]


def test_a_wrong_part_is_downloaded_again(fetch: Fetcher, address: str) -> None:
    (fetch.folder / "set.tar.gz.part").write_bytes(b"of another file" * 1000)
    fetch(f"{address}/good")
    assert fetch.seen == CONTENT
    assert [asked for _, asked in Server.requests] == ["bytes=15000-", None]


def test_a_complete_part_is_only_checked(fetch: Fetcher, dead: str) -> None:
    (fetch.folder / "set.tar.gz.part").write_bytes(CONTENT)
    fetch(dead)
    assert fetch.seen == CONTENT


@pytest.mark.parametrize(("behaviour", "text"), [("corrupt", str(ARCHIVE.md5)), ("other-size", "300001 bytes")])
def test_another_file(behaviour: str, text: str, fetch: Fetcher, address: str) -> None:
    with pytest.raises(DownloadError, match=text):
        fetch(f"{address}/{behaviour}")
    assert list(fetch.folder.iterdir()) == []


def test_a_slow_mirror_is_given_up_unless_it_is_the_last(fetch: Fetcher, address: str) -> None:
    fetch(f"{address}/slow", f"{address}/good", limits=IMPATIENT)
    behaviour, asked = Server.requests[-1]
    assert behaviour == "good"
    assert asked is not None  # it resumes
    (fetch.folder / "set.tar.gz").unlink()
    fetch(f"{address}/slow", limits=IMPATIENT)
    assert fetch.seen == CONTENT


@pytest.mark.parametrize(
    ("behaviour", "limits", "reason"),
    [
        ("404", PATIENT, "HTTP 404"),
        ("silent", MirrorLimits(silence_s=1.0), "stopped sending"),
        ("mute", MirrorLimits(answer_s=0.1), "no answer"),
        ("slow", IMPATIENT, "too slow"),
        ("corrupt", PATIENT, "MD5"),
    ],
)
def test_the_error_lists_reasons_and_alternatives(
    behaviour: str, limits: MirrorLimits, reason: str, fetch: Fetcher, address: str, dead: str
) -> None:
    with pytest.raises(DownloadError) as caught:
        fetch(f"{address}/{behaviour}", dead, limits=limits)
    text = str(caught.value)
    assert isinstance(caught.value, RunFailedError)
    for url, expected in ((f"{address}/{behaviour}", reason), (dead, "")):
        assert re.search(re.escape(url) + f": [^;]*{expected}", text), text
    for option in ("--source PATH", "FASTCIFAR_SOURCE=PATH", "--url URL", "--source synthetic"):
        assert option in text
    assert "\n" not in text


def test_an_archive_without_a_checksum_is_accepted_by_its_content(fetch: Fetcher, address: str) -> None:
    unknown = Archive(name="tree.tgz", md5=None, size=None)
    (fetch.folder / "tree.tgz.part").write_bytes(b"an older try")
    with pytest.raises(DownloadError, match="these are not the images"):
        fetch(f"{address}/corrupt", archive=unknown)
    assert list(fetch.folder.iterdir()) == []
    fetch(f"{address}/good", archive=unknown)
    assert fetch.seen == CONTENT
    assert all(asked is None for _, asked in Server.requests)


def test_a_name_server_that_does_not_answer(fetch: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: end.wait())
    try:
        with pytest.raises(DownloadError, match="no answer"):
            fetch("http://mirror.example/a", "http://mirror.example/b", limits=MirrorLimits(answer_s=0.1))
    finally:
        end.set()


def test_a_full_disk_is_not_the_mirrors_fault(fetch: Fetcher, address: str) -> None:
    (fetch.folder / "set.tar.gz.part").symlink_to("/dev/full")
    with pytest.raises(RunFailedError, match=r"set\.tar\.gz\.part .*No space left"):
        fetch(f"{address}/good", f"{address}/good", archive=ARCHIVE)
