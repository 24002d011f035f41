"""The images of a report: galleries and Grad-CAM as tiles, each image a PNG inside the page."""

import base64
import io
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from fastcifar.analysis.galleries import Answer, as_rows
from fastcifar.analysis.gallery_figures import overlay
from fastcifar.analysis.gallery_files import Explained

MAGNIFIED = 4
"""Pixels of an overlay per pixel of its image, to draw a thin line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A test image and its prediction; images are data URIs."""

    index: int
    source: str
    true: str
    true_probability: float
    predicted: str
    predicted_probability: float
    is_correct: bool
    predicted_heat: str | None = None
    true_heat: str | None = None
    """None for a correct prediction."""

    @property
    def description(self) -> str:
        """The image's alternative text."""
        how = "correctly predicted" if self.is_correct else f"predicted as {self.predicted}"
        return f"test image {self.index}, {self.true}, {how} with probability {self.predicted_probability:.1%}"


def tiles(answers: list[Answer], images: np.ndarray, class_names: list[str]) -> list[Tile]:
    """One tile per answer; `images`: the test set, uint8 (n, s, s, 3), which the answers index."""
    return [
        Tile(source=png_uri(images[answer.index]), is_correct=answer.is_correct, **row)
        for answer, row in zip(answers, as_rows(answers, class_names), strict=True)
    ]


def explained_tiles(explained: Explained, images: np.ndarray, class_names: list[str]) -> list[Tile]:
    """As `tiles`, with the heat for the predicted class and, if that is wrong, for the true class."""
    predicted, true = (cam.relative(images.shape[1]).numpy() for cam in (explained.predicted, explained.true))
    return [
        replace(
            tile,
            predicted_heat=heat_uri(images[tile.index], predicted[at]),
            true_heat=None if tile.is_correct else heat_uri(images[tile.index], true[at]),
        )
        for at, tile in enumerate(tiles(explained.answers, images, class_names))
    ]


def heat_uri(image: np.ndarray, heat: np.ndarray) -> str:
    """An image, uint8 (s, s, 3), under its heat, (s, s) in 0..1, with a white line around heat of at least 0.5."""
    large = overlay(image, heat).repeat(MAGNIFIED, 0).repeat(MAGNIFIED, 1)
    hot = np.pad((heat >= 0.5).repeat(MAGNIFIED, 0).repeat(MAGNIFIED, 1), 1)
    inner = hot[:-2, 1:-1] & hot[2:, 1:-1] & hot[1:-1, :-2] & hot[1:-1, 2:]
    large[hot[1:-1, 1:-1] & ~inner] = 255
    return png_uri(large)


def png_uri(image: np.ndarray) -> str:
    """uint8 (h, w, 3) as the data URI of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
