"""Saves matplotlib figures."""

from pathlib import Path

from matplotlib.figure import Figure

from fastcifar.files import atomic_path


def save_figure(figure: Figure, path: Path) -> Path:
    """Writes a PNG atomically and returns its path."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
    return path
