"""`fastcifar report`: what it writes and refuses, and that a browser shows it."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
"""A window is never narrower than 500 pixels; a frame in it is."""


@pytest.fixture
def copy(finished: Any, tmp_path: Path) -> Path:
    """The finished run, with room for a report."""
    return shutil.copytree(finished.folder, tmp_path / "runs" / "copy")


def test_the_page_is_written_beside_the_run(copy: Path, command: Command) -> None:
    done = command("report", "copy", "--runs", copy.parent)
    assert done.code == 0
    page = (copy / "report.html").read_text(encoding="utf-8")
    assert done.out == f"{copy / 'report.html'} ({len(page.encode()) / 1e6:.1f} MB)\n"
    assert page.startswith("<!DOCTYPE html>\n")
    assert not list(copy.glob(".*.part"))


def test_what_is_refused(copy: Path, tmp_path: Path, command: Command) -> None:
    text = command("report", copy, "--out", copy / "record.json").refused()
    assert text == f"--out is {copy / 'record.json'}, but must name a file that ends in .html"
    assert command("report", copy, copy).refused() == "a run is named twice; a comparison needs different ones"
    assert command("report", "nix", "--runs", tmp_path).refused() == (
        f"no run is called nix, neither as a path nor in {tmp_path}"
    )
    (copy / "record.json").unlink()
    assert command("report", copy).refused() == f"{copy} holds no finished run: {copy / 'record.json'} is missing"


def test_a_place_that_cannot_be_written(copy: Path, command: Command) -> None:
    out = copy / "record.json" / "page.html"
    assert command("report", copy, "--out", out).refused() == f"cannot write {out}: File exists; choose another --out"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_browser_shows_it(copy: Path, command: Command) -> None:
    page = copy.parent / "new" / "page.html"
    assert command("report", "--runs", copy.parent, "--out", page).code == 0
    assert "CONSOLE" not in browse(page, "--enable-logging=stderr").stderr
    content = re.sub(r"<meta http-equiv=.*?>", "", page.read_text(encoding="utf-8"))  # it forbids scripts
    write_text(page.with_name("probed.html"), content.replace("</body>", PROBE))
    write_text(page.with_name("frames.html"), FRAMES)
    shown = browse(page.with_name("frames.html"), "--virtual-time-budget=10000").stdout
    sizes = sorted(tuple(map(int, found)) for found in re.findall(r"\[(\d+),(\d+),(\d+),(\d+)\]", shown))
    assert [window for window, _, _, _ in sizes] == [390, 1280], shown[:500]
    for window, needed, images, loaded in sizes:
        assert images == loaded > 75
        assert needed == window


def browse(page: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={page.parent / 'profile'}", *flags, "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
