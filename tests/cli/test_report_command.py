"""`fastcifar report`: what it writes and refuses, and that a browser shows it."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastcifar.analysis.report import page as report_page
from fastcifar.files import write_text

Command = Callable[..., Any]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PROBE = """<script>addEventListener("load", () => {
  const images = [...document.images], loaded = images.filter(image => image.naturalWidth > 0);
  parent.postMessage([innerWidth, document.scrollingElement.scrollWidth, images.length, loaded.length], "*");
});</script></body>"""
FRAMES = """<!DOCTYPE html><pre id="found"></pre><script>addEventListener("message",
  event => document.getElementById("found").append(JSON.stringify(event.data)));</script>
<iframe src="probed.html" width="1280" height="800"></iframe>
<iframe src="probed.html" width="390" height="800"></iframe>
"""
"""Frames, because a window is never narrower than 500 pixels."""


@pytest.fixture
def copy(finished: Any, tmp_path: Path) -> Path:
    """A copy of the finished run that may be changed."""
    return shutil.copytree(finished.folder, tmp_path / "runs" / "copy")


def test_what_is_refused(copy: Path, tmp_path: Path, command: Command) -> None:
    record = copy / "record.json"
    assert f"--out is {record}" in command("report", copy, "--out", record).refused()
    assert f"cannot write {record / 'a.html'}" in command("report", copy, "--out", record / "a.html").refused()
    assert "twice" in command("report", copy, copy).refused()
    assert "nix" in command("report", "nix", "--runs", tmp_path).refused()
    record.unlink()
    assert str(record) in command("report", copy).refused()


def test_a_page_is_written_and_a_browser_shows_it(copy: Path, command: Command) -> None:
    done = command("report", "copy", "--runs", copy.parent)
    assert done.code == 0
    page = copy / "report.html"
    content = page.read_text(encoding="utf-8")
    assert done.out == f"wrote {page}, {len(content.encode()) / 1e6:.1f} MB\n"
    assert content.startswith("<!DOCTYPE html>\n")
    assert not list(copy.glob(".*.part"))
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    assert "CONSOLE" not in browse(page, "--enable-logging=stderr").stderr
    content = re.sub(r"<meta http-equiv=.*?>", "", content)  # it forbids scripts
    write_text(page.with_name("probed.html"), content.replace("</body>", PROBE))
    write_text(page.with_name("frames.html"), FRAMES)
    shown = browse(page.with_name("frames.html"), "--virtual-time-budget=10000").stdout
    sizes = sorted(tuple(map(int, found)) for found in re.findall(r"\[(\d+),(\d+),(\d+),(\d+)\]", shown))
    assert [window for window, _, _, _ in sizes] == [390, 1280], shown[:500]
    for window, needed, images, loaded in sizes:
        assert images == loaded > 75
        assert needed == window


def test_only_the_same_runs_replace_a_report(
    copy: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_page, "build_report", lambda folders, data: str(folders))
    for folder in ("a", "b", "elsewhere/b"):
        (copy.parent / folder).mkdir(parents=True)

    def report(*runs: str) -> tuple[Path, bool]:
        _, path, *_ = re.split("wrote |, | \\(replaced", done := command("report", *runs, "--runs", copy.parent).out)
        return Path(path), "replaced" in done

    several = [("copy", "a"), ("copy", "b"), ("copy", "elsewhere/b"), ("copy", "a", "b")]
    written = [report("copy"), *(report(*runs) for runs in several)]
    paths = [path for path, _ in written]
    assert len(set(paths)) == 5
    assert set(copy.glob("*.html")) == set(paths)
    assert not any(replaced for _, replaced in written)
    assert report("copy") == (copy / "report.html", True)
    assert report("copy", "b", "a") == (paths[-1], True)
    assert report("a", "copy")[0].parent == copy.parent / "a"


def browse(page: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={page.parent / 'profile'}", *flags, "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
