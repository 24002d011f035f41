"""Galleries and Grad-CAM as matplotlib figures; images are enlarged without smoothing."""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from fastcifar.analysis.galleries import Answer

COLUMNS = 5
TILE_INCHES, CAPTION_INCHES = 1.45, 0.48
HEAT_FRACTION = 0.6
"""Opacity of the heat over the image, which is grey so that colour means heat only."""
LUMA = np.array([0.299, 0.587, 0.114])
"""Brightness of red, green and blue (ITU-R BT.601)."""
WRONG_COLOUR, CORRECT_COLOUR, INDEX_COLOUR = "#b2182b", "#1a6b2f", "#555555"


def gallery_figure(answers: list[Answer], images: np.ndarray, class_names: list[str], title: str = "") -> Figure:
    """One tile per answer, five a row; `images`: the test set, uint8 (n, 32, 32, 3), which the answers index.

    Above each image its index, below it the predicted and, if that is wrong, the true class.
    """
    figure, axes = _grid(len(answers), COLUMNS, title)
    for axis, answer in zip(axes, answers, strict=True):
        _draw_image(axis, answer, images)
        predicted = f"{class_names[answer.prediction]} {answer.prediction_probability:.1%}"
        if answer.is_correct:
            _write_below(axis, predicted)
        else:
            true = f"{class_names[answer.label]} {answer.label_probability:.1%}"
            _write_below(axis, f"predicted {predicted}", WRONG_COLOUR)
            _write_below(axis, f"true {true}", CORRECT_COLOUR, line=1)
    return figure


def failures_figure(
    by_class: list[list[Answer]], images: np.ndarray, class_names: list[str], title: str = ""
) -> Figure:
    """One row per true class with its most confident mistakes; `by_class` from `galleries.failures_by_class`."""
    columns = max(1, max((len(answers) for answers in by_class), default=1))
    figure, axes = _grid(columns * len(by_class), columns, title, extra_width=0.9)
    for row, (name, answers) in enumerate(zip(class_names, by_class, strict=True)):
        cells = axes[row * columns : (row + 1) * columns]
        cells[0].text(-0.12, 0.5, name, transform=cells[0].transAxes, ha="right", va="center", fontsize=10)
        if not answers:
            cells[0].text(0.5, 0.5, "no mistakes", transform=cells[0].transAxes, ha="center", va="center", fontsize=8)
        for axis, answer in zip(cells, answers, strict=False):
            _draw_image(axis, answer, images)
            _write_below(axis, f"{class_names[answer.prediction]} {answer.prediction_probability:.1%}", WRONG_COLOUR)
    return figure


def grad_cam_figure(
    answers: list[Answer],
    images: np.ndarray,
    predicted_heat: np.ndarray,
    true_heat: np.ndarray,
    class_names: list[str],
    title: str = "",
) -> Figure:
    """Each image beside its heat for the predicted class and, if any answer is wrong, for the true class.

    Heats: float (len(answers), 32, 32) in 0..1, from `GradCam.relative`. A contour line at half the largest heat makes
    them readable without colour.
    """
    any_wrong = any(not answer.is_correct for answer in answers)
    group = 3 if any_wrong else 2  # tiles per answer
    columns = (3 if any_wrong else COLUMNS) * group
    figure, axes = _grid(len(answers) * group, columns, title, tile=1.1, group=group)
    for at, answer in enumerate(answers):
        image, *overlays = axes[at * group : (at + 1) * group]
        _draw_image(image, answer, images)
        predicted = f"{class_names[answer.prediction]} {answer.prediction_probability:.1%}"
        true = f"{class_names[answer.label]} {answer.label_probability:.1%}"
        colours = ("black", "black") if answer.is_correct else (WRONG_COLOUR, CORRECT_COLOUR)
        heats = (("predicted", predicted_heat[at], predicted), ("true", true_heat[at], true))
        for axis, colour, (kind, heat, text) in zip(overlays, colours, heats, strict=False):
            _draw_heat(axis, images[answer.index], heat)
            axis.set_title(kind if any_wrong else "heat", fontsize=7, color=INDEX_COLOUR, pad=2)
            _write_below(axis, text, colour)
    if answers:
        _heat_bar(figure)
    return figure


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The image, uint8 (s, s, 3), in grey under its heat, (s, s) in 0..1, dark to bright: uint8 (s, s, 3)."""
    colours = 255 * colormaps["inferno"](heat)[..., :3]
    grey = (image @ LUMA)[..., None]
    return np.rint((1 - HEAT_FRACTION) * grey + HEAT_FRACTION * colours).astype(np.uint8)


def _grid(
    tiles: int, columns: int, title: str, *, tile: float = TILE_INCHES, extra_width: float = 0.0, group: int = 1
) -> tuple[Figure, list[Any]]:
    """A figure of `tiles` axes without ticks; every `group` of them stand close together."""
    if tiles == 0:
        figure = Figure(figsize=(6, 1.4), dpi=150)
        figure.text(0.5, 0.7, title, ha="center", fontsize=11)
        figure.text(0.5, 0.3, "no such images", ha="center", fontsize=10, color=INDEX_COLOUR)
        return figure, []
    rows, groups, pitch = -(-tiles // columns), columns // group, tile + CAPTION_INCHES
    width, height = tile * columns + 0.15 * groups + extra_width + 0.2, pitch * rows + 0.95
    figure = Figure(figsize=(width, height), dpi=150)
    figure.suptitle(title, fontsize=11, y=1 - 0.2 / height, va="top")
    axes: list[Any] = []
    for number in range(tiles):
        row, column = divmod(number, columns)
        left = extra_width + 0.15 + tile * column + 0.15 * (column // group)
        bottom = height - 0.55 - pitch * row - tile
        axis = figure.add_axes((left / width, bottom / height, (tile - 0.06) / width, (tile - 0.06) / height))
        axis.set_axis_off()
        axes.append(axis)
    return figure, axes


def _draw_image(axis: Any, answer: Answer, images: np.ndarray) -> None:
    axis.imshow(images[answer.index], interpolation="nearest")
    axis.set_title(f"no. {answer.index}", fontsize=7, color=INDEX_COLOUR, pad=2)


def _draw_heat(axis: Any, image: np.ndarray, heat: np.ndarray) -> None:
    axis.imshow(overlay(image, heat), interpolation="nearest")
    if heat.max() > 0:
        axis.contour(heat, levels=[0.5], colors="white", linewidths=0.9)
    else:
        axis.text(0.5, 0.5, "no heat", transform=axis.transAxes, ha="center", va="center", color="white")


def _write_below(axis: Any, text: str, colour: str = "black", line: int = 0) -> None:
    at = -0.04 - 0.11 * line
    axis.text(0.5, at, text, transform=axis.transAxes, ha="center", va="top", fontsize=7.5, color=colour)


def _heat_bar(figure: Figure) -> None:
    """The key to the colours of the overlays, at the bottom."""
    width, height = figure.get_size_inches()
    axis = figure.add_axes((0.5 - 1.2 / width, 0.22 / height, 2.4 / width, 0.1 / height))
    axis.imshow(np.linspace(0, 1, 64)[None], cmap="inferno", aspect="auto", extent=(0, 1, 0, 1))
    axis.set_yticks([])
    axis.axvline(0.5, color="white", linewidth=0.9)
    axis.set_xticks([0, 0.5, 1], ["0", "0.5 (white line)", "1"], fontsize=7)
    axis.set_title("heat, divided by the largest of its image", fontsize=7, pad=2)
    axis.tick_params(length=2, pad=1)
