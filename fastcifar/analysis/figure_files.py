"""Figures as files."""

from pathlib import Path
from typing import TYPE_CHECKING

from fastcifar.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: "Figure", path: Path) -> Path:
    """Writes a PNG, whole or not at all, and returns its path."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
    return path
