"""`fastcifar prepare`: options, output, exit codes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastcifar.data.prepared import load_manifest, write_set
from fastcifar.data.sources.synthetic import synthetic_set

Command = Callable[..., Any]
SMALL = ["--source", "synthetic", "--synthetic-train", "120", "--synthetic-test", "30", "--seed", "5"]
FILES = ("train.beton", "test.beton", "manifest.json")


@pytest.fixture(autouse=True)
def no_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTCIFAR_SOURCE", raising=False)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder prepared by `python -m fastcifar.prepare`."""
    out = tmp_path_factory.mktemp("prepare") / "new" / "data"
    arguments = [sys.executable, "-m", "fastcifar.prepare", "--out", str(out), *SMALL]
    environment = {name: value for name, value in os.environ.items() if name != "FASTCIFAR_SOURCE"}
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=120, env=environment)
    assert result.returncode == 0, result.stderr
    assert f"synthetic in {out}: 120 train and 30 test images" in result.stdout
    assert "10 classes: checkerboard, columns" in result.stdout
    return out


def test_the_files_equal_those_of_write_set(prepared: Path, tmp_path: Path) -> None:
    write_set(synthetic_set(train=120, test=30, seed=5), tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (prepared / name).read_bytes(), name


def test_a_second_run_does_nothing(prepared: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (prepared / "manifest.json").stat()
    monkeypatch.setenv("FASTCIFAR_SOURCE", "")
    for arguments in (SMALL, []):
        done = command("prepare", "--out", prepared, *arguments)
        assert done.code == 0
        assert "nothing written" in done.out
    assert (prepared / "manifest.json").stat() == before
    assert {path.name for path in prepared.iterdir()} - {".lock"} == {*FILES, ".verified.json"}


def test_verify(prepared: Path, tmp_path: Path, command: Command) -> None:
    done = command("prepare", "--verify", "--out", prepared)
    assert done.code == 0
    for info in load_manifest(prepared).splits.values():
        assert f"{prepared / info.file} is intact, SHA-256 {info.sha256}" in done.out
    for name in (*FILES, ".verified.json"):
        (tmp_path / name).write_bytes((prepared / name).read_bytes())
    content = bytearray((tmp_path / "test.beton").read_bytes())
    content[9_000_000] ^= 1
    (tmp_path / "test.beton").write_bytes(content)
    refused = command("prepare", "--verify", "--out", tmp_path).refused()
    assert "test.beton" in refused
    assert "SHA-256" in refused


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--source", "/nowhere/at/all"], "/nowhere/at/all"),
        (["--verify", "--force"], "--force"),
        (["--verify", "--hold-out", "5"], "--hold-out"),
        (["--source", "synthetic", "--synthetic-train", "3"], "3 train"),
        (["--url", "ftp://host/file"], "--url is 'ftp://host/file'"),
    ],
)
def test_mistakes(arguments: list[str], shown: str, tmp_path: Path, command: Command) -> None:
    assert shown in command("prepare", "--out", tmp_path, *arguments).refused()


def test_held_out_images_are_labelled(tmp_path: Path, command: Command) -> None:
    done = command("prepare", "--out", tmp_path, *SMALL, "--hold-out", "20")
    assert f"synthetic in {tmp_path}: 100 train and 20 held-out images" in done.out


def test_the_environment_names_the_source(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCIFAR_SOURCE", "/nowhere/else")
    assert "/nowhere/else" in command("prepare", "--out", tmp_path).refused()
    assert "FASTCIFAR_SOURCE" in command("prepare", "--help").out


def test_import_does_nothing() -> None:
    code = "import sys, fastcifar.prepare; assert not {'torch', 'numba', 'ffcv', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
