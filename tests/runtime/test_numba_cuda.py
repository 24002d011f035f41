"""numba-cuda is imported in one place, which makes it work with NumPy 2.5."""

from pathlib import Path

import numpy as np
import pytest

import fastcifar
from fastcifar.runtime.numba_cuda import import_numba_cuda


def test_row_stack_is_there_without_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(np, "row_stack", raising=False)
    assert import_numba_cuda().__name__ == "numba.cuda"
    assert np.row_stack is np.vstack  # type: ignore[attr-defined]  # noqa: NPY201


def test_every_import_of_it_goes_through_one_function() -> None:
    package = Path(fastcifar.__file__).parent
    imports = ("numba.cuda", "numba import cuda", "import numba_cuda")
    found = {
        path.name
        for path in package.rglob("*.py")
        for line in path.read_text().splitlines()
        if "import" in line and "import_numba_cuda" not in line and any(text in line for text in imports)
    }
    assert found == {"numba_cuda.py"}
