"""The download, against a server on this machine that behaves as badly as the real ones."""

import hashlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from fastcifar.data.cifar10 import MIRRORS, PYTHON_ARCHIVE, Archive
from fastcifar.data.download import DownloadError, Patience, download_set
from fastcifar.data.raw_set import RawSet
from fastcifar.errors import RunFailedError, UserError

CONTENT = np.random.default_rng(0).bytes(300_000)
ARCHIVE = Archive(name="set.tar.gz", md5=hashlib.md5(CONTENT).hexdigest(), size=len(CONTENT))
IMPATIENT = Patience(open_s=2.0, silent_s=0.4, slow_bytes_per_s=1_000_000, slow_over_s=0.3)


class Server(BaseHTTPRequestHandler):
    """The path says how: /good, /no-range, /short, /slow, /silent, /corrupt, /other-size, /404, /wrong-range, /mute."""

    requests: list[tuple[str, str | None]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        behaviour, asked = self.path.strip("/"), self.headers.get("Range")
        self.requests.append((behaviour, asked))
        if behaviour == "404":
            self.send_error(404)
            return
        if behaviour == "mute":
            time.sleep(5)
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
            if behaviour != "good":
                time.sleep({"slow": 0.1, "silent": 1.5}.get(behaviour, 0.0))

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
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
    """Downloads from mirrors of ARCHIVE and remembers what was read."""

    def __init__(self, folder: Path, raw: RawSet) -> None:
        self.folder, self.raw, self.seen = folder, raw, b""

    def __call__(self, *urls: str, archive: Archive = ARCHIVE, patience: Patience = IMPATIENT) -> RawSet:
        def read(path: Path, archive: Archive) -> RawSet:
            self.seen = path.read_bytes()
            if self.seen == bytes(len(CONTENT)):
                raise UserError("these are not the images")
            return self.raw

        return download_set([(url, archive) for url in urls], self.folder, read, patience)


@pytest.fixture
def fetch(tmp_path: Path, small_set: RawSet) -> Fetcher:
    return Fetcher(tmp_path, small_set)


def test_download(fetch: Fetcher, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch(f"{address}/good") is fetch.raw
    assert fetch.seen == CONTENT
    assert [path.name for path in fetch.folder.iterdir()] == ["set.tar.gz"]
    shown = capsys.readouterr().err
    assert "download set.tar.gz from 127.0.0.1" in shown
    assert "MB/s" in shown


@pytest.mark.parametrize("behaviour", ["good", "no-range", "wrong-range"])
def test_an_unfinished_file_is_continued(behaviour: str, fetch: Fetcher, address: str) -> None:
    with pytest.raises(DownloadError, match="ended after 150000 of 300000 bytes"):
        fetch(f"{address}/short")
    assert (fetch.folder / "set.tar.gz.part").stat().st_size == 150_000
    if behaviour == "wrong-range":
        with pytest.raises(DownloadError, match="answers a request from byte 150000 with 'bytes 5-299999/300000'"):
            fetch(f"{address}/wrong-range")
        assert (fetch.folder / "set.tar.gz.part").stat().st_size == 150_000
        return
    fetch(f"{address}/{behaviour}")
    assert fetch.seen == CONTENT
    assert Server.requests[-1] == (behaviour, "bytes=150000-")


def test_the_next_mirror_continues(fetch: Fetcher, address: str, dead: str) -> None:
    fetch(dead, f"{address}/404", f"{address}/short", f"{address}/good")
    assert fetch.seen == CONTENT
    assert Server.requests == [("404", None), ("short", None), ("good", "bytes=150000-")]


def test_a_wrong_beginning_is_not_mixed_in(fetch: Fetcher, address: str) -> None:
    (fetch.folder / "set.tar.gz.part").write_bytes(b"of another file" * 1000)
    fetch(f"{address}/good")
    assert fetch.seen == CONTENT
    assert [asked for _, asked in Server.requests] == ["bytes=15000-", None]


def test_a_complete_part_is_only_checked(fetch: Fetcher, dead: str) -> None:
    (fetch.folder / "set.tar.gz.part").write_bytes(CONTENT)
    fetch(dead)
    assert fetch.seen == CONTENT


def test_wrong_checksum(fetch: Fetcher, address: str) -> None:
    with pytest.raises(DownloadError, match=rf"wrong checksum: MD5 [0-9a-f]{{32}}, expected {ARCHIVE.md5}"):
        fetch(f"{address}/corrupt")
    assert list(fetch.folder.iterdir()) == []


def test_a_file_of_another_size_is_not_downloaded(fetch: Fetcher, address: str) -> None:
    with pytest.raises(DownloadError, match="serves a file of 300001 bytes, expected 300000"):
        fetch(f"{address}/other-size")


def test_a_slow_mirror_is_left_unless_it_is_the_last(fetch: Fetcher, address: str) -> None:
    fetch(f"{address}/slow", f"{address}/good")
    assert Server.requests[-1][0] == "good"
    assert Server.requests[-1][1] is not None
    (fetch.folder / "set.tar.gz").unlink()
    fetch(f"{address}/slow")
    assert fetch.seen == CONTENT


def test_reasons_and_ways_out(fetch: Fetcher, address: str, dead: str) -> None:
    urls = [dead, f"{address}/404", f"{address}/silent", f"{address}/mute", f"{address}/slow", f"{address}/corrupt"]
    patience = Patience(open_s=0.6, silent_s=0.9, slow_bytes_per_s=1_000_000, slow_over_s=0.3)
    with pytest.raises(DownloadError) as caught:
        fetch(*urls, patience=patience)
    text = str(caught.value)
    assert isinstance(caught.value, RunFailedError)
    reasons = [
        "Connection refused",
        "HTTP 404 Not Found",
        "stopped sending",
        "no answer within 1 s",
        "too slow: ",
        "MD5",
    ]
    for url, reason in zip(urls, reasons, strict=True):
        assert re.search(re.escape(url) + r": [^;]*" + re.escape(reason), text), (url, reason, text)
    for way in ("--source PATH", "FASTCIFAR_SOURCE=PATH", "--url URL", "--source synthetic"):
        assert way in text
    assert "\n" not in text


def test_an_archive_without_a_checksum_is_judged_by_its_content(fetch: Fetcher, address: str) -> None:
    unknown = Archive(name="tree.tgz", md5=None, size=None)
    (fetch.folder / "tree.tgz.part").write_bytes(b"an older try")
    with pytest.raises(DownloadError, match="these are not the images"):
        fetch(f"{address}/corrupt", archive=unknown)
    assert list(fetch.folder.iterdir()) == []
    fetch(f"{address}/good", archive=unknown)
    assert fetch.seen == CONTENT
    assert all(asked is None for _, asked in Server.requests)


def test_no_network_is_said_soon(fetch: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> None:
        time.sleep(2)

    monkeypatch.setattr(socket, "getaddrinfo", hang)  # a name server that does not answer
    started = time.monotonic()
    with pytest.raises(DownloadError, match="no answer within"):
        fetch("http://mirror.example/a", "http://mirror.example/b", patience=Patience(open_s=0.3))
    assert time.monotonic() - started < 1.5
    assert (len(MIRRORS) + 1) * Patience().open_s <= 30
    time.sleep(1.8)  # lets the two abandoned threads end


def test_url_of_another_kind(fetch: Fetcher) -> None:
    with pytest.raises(UserError, match=r"--url is 'file:///etc/passwd', expected one that begins with https://"):
        fetch("file:///etc/passwd")


def test_a_full_disk_is_not_the_mirrors_fault(fetch: Fetcher, address: str) -> None:
    (fetch.folder / "set.tar.gz.part").symlink_to("/dev/full")
    with pytest.raises(RunFailedError, match=r"set\.tar\.gz\.part cannot be written: No space left on device"):
        fetch(f"{address}/good", f"{address}/good", archive=ARCHIVE)


def test_the_known_mirrors() -> None:
    assert all(url.startswith("https://") for url, _ in MIRRORS)
    assert (PYTHON_ARCHIVE.size, PYTHON_ARCHIVE.md5) == (170_498_071, "c58f30108f718f92721af3b95e74349a")
    assert MIRRORS[-1][0] == "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
