"""The images of a report: galleries and Grad-CAM as tiles, each image a PNG inside the page."""

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastcifar.analysis.galleries import Answer
from fastcifar.analysis.gallery_figures import overlay

if TYPE_CHECKING:
    from fastcifar.analysis.gallery_files import Explained

MAGNIFIED = 4
"""Pixels a side of an overlay for each pixel of its image: room for a thin line."""


@dataclass(frozen=True, slots=True)
class Tile:
    """An image of the test set and what was said of it; sources are data URIs."""

    index: int
    source: str
    true: str
    true_probability: float
    predicted: str
    predicted_probability: float
    is_correct: bool
    predicted_heat: str | None = None
    true_heat: str | None = None
    """None where the true class is the predicted one, or nothing is explained."""

    @property
    def description(self) -> str:
        """In place of the image, for whoever cannot see it."""
        said = "recognised" if self.is_correct else f"taken for {self.predicted}"
        return f"test image {self.index}, {self.true}, {said} with {self.predicted_probability:.1%}"


def tiles(answers: list[Answer], images: np.ndarray, class_names: list[str]) -> list[Tile]:
    """A tile an answer; `images`: the test set, uint8 (n, s, s, 3), which the answers index."""
    return [_tile(answer, images, class_names) for answer in answers]


def explained_tiles(explained: "Explained", images: np.ndarray, class_names: list[str]) -> list[Tile]:
    """The same with the heat for the predicted class and, of wrong answers, for the true one."""
    predicted, true = (cam.relative(images.shape[1]).numpy() for cam in (explained.predicted, explained.true))
    return [
        _tile(
            answer,
            images,
            class_names,
            predicted_heat=heat_uri(images[answer.index], predicted[at]),
            true_heat=None if answer.is_correct else heat_uri(images[answer.index], true[at]),
        )
        for at, answer in enumerate(explained.answers)
    ]


def heat_uri(image: np.ndarray, heat: np.ndarray) -> str:
    """An image, uint8 (s, s, 3), under its heat, (s, s) in 0..1, with a white line around the hotter half."""
    large = overlay(image, heat).repeat(MAGNIFIED, 0).repeat(MAGNIFIED, 1)
    hot = np.pad((heat >= 0.5).repeat(MAGNIFIED, 0).repeat(MAGNIFIED, 1), 1)
    inner = hot[:-2, 1:-1] & hot[2:, 1:-1] & hot[1:-1, :-2] & hot[1:-1, 2:]
    large[hot[1:-1, 1:-1] & ~inner] = 255
    return png_uri(large)


def png_uri(image: np.ndarray) -> str:
    """uint8 (h, w, 3) as the data URI of a PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _tile(
    answer: Answer,
    images: np.ndarray,
    class_names: list[str],
    *,
    predicted_heat: str | None = None,
    true_heat: str | None = None,
) -> Tile:
    return Tile(
        index=answer.index,
        source=png_uri(images[answer.index]),
        true=class_names[answer.label],
        true_probability=answer.label_probability,
        predicted=class_names[answer.prediction],
        predicted_probability=answer.prediction_probability,
        is_correct=answer.is_correct,
        predicted_heat=predicted_heat,
        true_heat=true_heat,
    )
