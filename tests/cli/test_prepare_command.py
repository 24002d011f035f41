"""The command `python -m fastcifar.prepare`: options, output, exit codes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastcifar.cli.prepare import main
from fastcifar.data.prepared import load_manifest, write_set
from fastcifar.data.sources.synthetic import synthetic_set
from fastcifar.errors import UserError

SMALL = ["--synthetic-train", "120", "--synthetic-test", "30", "--seed", "5"]


@pytest.fixture(autouse=True)
def no_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTCIFAR_SOURCE", raising=False)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fastcifar.prepare", *arguments]
    environment = {**{k: v for k, v in os.environ.items() if k != "FASTCIFAR_SOURCE"}, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepare") / "new" / "data"
    result = run("--source", "synthetic", "--out", str(out), *SMALL)
    assert result.returncode == 0, result.stderr
    assert f"synthetic in {out}: 120 train and 30 test images, from synthetic" in result.stdout
    assert "10 classes: checkerboard, columns" in result.stdout
    assert "(0..1, red green blue)" in result.stdout
    assert "done in " in result.stdout
    assert "write betons  " in result.stderr
    return out


def test_another_prepare_gives_the_same_bytes(prepared: Path, tmp_path: Path) -> None:
    write_set(synthetic_set(train=120, test=30, seed=5), tmp_path)
    for name in ("train.beton", "test.beton", "manifest.json"):
        assert (tmp_path / name).read_bytes() == (prepared / name).read_bytes(), name


def test_a_second_run_does_nothing(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (prepared / "manifest.json").stat()
    main(["--source", "synthetic", "--out", str(prepared), *SMALL])
    main(["--out", str(prepared)])
    assert capsys.readouterr().out.count("already there, nothing to do (--force writes it again)") == 2
    assert (prepared / "manifest.json").stat() == before
    assert {path.name for path in prepared.iterdir()} - {".lock"} == {
        "train.beton",
        "test.beton",
        "manifest.json",
        ".verified.json",
    }


def test_verify(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--verify", "--out", str(prepared)])
    shown = capsys.readouterr().out
    for split, info in load_manifest(prepared).splits.items():
        assert f"{split}: {prepared / info.file} is sound, SHA-256 {info.sha256}" in shown
    for name in ("train.beton", "test.beton", "manifest.json", ".verified.json"):
        (tmp_path / name).write_bytes((prepared / name).read_bytes())
    content = bytearray((tmp_path / "test.beton").read_bytes())
    content[9_000_000] ^= 1
    (tmp_path / "test.beton").write_bytes(content)
    result = run("--verify", "--out", str(tmp_path))
    assert result.returncode == 2
    assert "test.beton is damaged or from another run: its SHA-256 is" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--source", "/nowhere/at/all"], "error: source /nowhere/at/all does not exist"),
        (["--verify", "--force"], "error: --verify only checks; leave out --force, or run it first"),
        (["--verify", "--hold-out", "5"], "error: --verify only checks; leave out --hold-out"),
        (["--source", "synthetic", "--synthetic-train", "3"], "error: the synthetic set was to have 3 train samples"),
        (["--url", "ftp://host/file"], "error: --url is 'ftp://host/file', expected"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(arguments: list[str], text: str, tmp_path: Path) -> None:
    result = run("--out", str(tmp_path), *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith(text)
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_held_out_images_are_called_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--source", "synthetic", "--out", str(tmp_path), *SMALL, "--hold-out", "20"])
    assert f"synthetic in {tmp_path}: 100 train and 20 held-out images, from synthetic" in capsys.readouterr().out


def test_unknown_option() -> None:
    with pytest.raises(UserError, match=r"^Unrecognized options: --sauce, synthetic; see `python -m fastcifar.prepare"):
        main(["--sauce", "synthetic"])


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    options = ["source", "out", "force", "verify", "resize", "url", "or-synthetic", "synthetic-train", "synthetic-test"]
    options.append("hold-out")
    for option in [*options, "seed", "debug"]:
        assert f"--{option}" in shown
    assert "FASTCIFAR_SOURCE" in shown


def test_the_environment_names_the_source(tmp_path: Path, prepared: Path) -> None:
    result = run("--out", str(tmp_path), FASTCIFAR_SOURCE="/nowhere/else")
    assert (result.returncode, result.stderr) == (2, "error: source /nowhere/else does not exist\n")
    result = run("--out", str(prepared), FASTCIFAR_SOURCE="")
    assert result.returncode == 0


def test_import_does_nothing() -> None:
    code = "import sys, fastcifar.prepare; assert not {'torch', 'numba', 'ffcv', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
