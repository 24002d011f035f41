"""The only place that imports `numba.cuda`."""

from typing import Any

import numpy as np


def import_numba_cuda() -> Any:
    """The module `numba.cuda`; importing it needs neither a GPU nor a driver. Raises ImportError without numba-cuda."""
    # numba-cuda up to 0.30.4 refers to np.row_stack when it first compiles a kernel, and NumPy 2.5 removed that alias
    # of np.vstack. Delete this line once pyproject.toml requires a numba-cuda without the reference.
    if not hasattr(np, "row_stack"):
        np.row_stack = np.vstack  # type: ignore[attr-defined]  # noqa: NPY201
    from numba import cuda

    return cuda
