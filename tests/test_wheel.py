"""The wheel holds the package and what it reads, and works where there is no checkout."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because setuptools writes into the source tree."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("fastcifar", "tests", "bench"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [*PIP, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", built, source]
    subprocess.run(command, check=True, cwd=built)
    (path,) = built.iterdir()
    return path


def test_content(wheel: Path) -> None:
    names = set(ZipFile(wheel).namelist())
    files = (path.relative_to(ROOT) for path in (ROOT / "fastcifar").rglob("*") if path.is_file())
    assert {str(path) for path in files if "__pycache__" not in path.parts} <= names
    assert {"fastcifar/py.typed", "fastcifar/analysis/report/templates/report.html"} <= names
    folders = {name.partition("/")[0] for name in names}
    assert folders == {"fastcifar", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_an_installed_wheel_trains(wheel: Path, tmp_path: Path) -> None:
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run([*PIP, "install", "--no-index", "--no-deps", "--target", installed, wheel], check=True)

    def run(*arguments: str) -> str:
        command, variables = [sys.executable, *arguments], os.environ | {"PYTHONPATH": str(installed)}
        done = subprocess.run(command, cwd=elsewhere, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert Path(run("-c", "import fastcifar; print(fastcifar.__file__)")).is_relative_to(installed)
    assert run("-m", "fastcifar", "--help").startswith("usage: fastcifar COMMAND")
    sizes = ["--synthetic-train", "200", "--synthetic-test", "100"]
    run("-m", "fastcifar", "prepare", "--source", "synthetic", *sizes)
    network = ["--model.widths", "8", "8", "--batch-size", "50", "--amp", "float32", "--cpu-kernels", "torch"]
    run("-m", "fastcifar", "train", "--recipe", "smoke", "--epochs", "1", "--device", "cpu", *network)
    (record,) = elsewhere.glob("runs/*/record.json")
    assert json.loads(record.read_text())["code_revision"] is None
