"""The files beside the package agree with it."""

from pathlib import Path

import fastcifar

ROOT = Path(__file__).parents[1]


def test_the_citation_names_this_version() -> None:
    lines = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "cff-version: 1.2.0"
    assert f"version: {fastcifar.__version__}" in lines
