"""Galleries and Grad-CAM as matplotlib figures: pixels stay pixels, captions short."""

from typing import TYPE_CHECKING, Any

import numpy as np

from fastcifar.analysis.galleries import Answer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 5
TILE_INCHES, CAPTION_INCHES = 1.45, 0.48
HEAT_FRACTION = 0.6
"""How much of an overlay is heat; the rest is the image, in grey, so that colour means heat only."""
LUMA = np.array([0.299, 0.587, 0.114])
"""Brightness of red, green and blue (ITU-R BT.601)."""
WRONG_COLOUR, CORRECT_COLOUR = "#b2182b", "#1a6b2f"


def gallery_figure(answers: list[Answer], images: np.ndarray, class_names: list[str], title: str = "") -> "Figure":
    """A tile an answer, five a row; `images`: the test set, uint8 (n, 32, 32, 3), which the answers index.

    Above an image its index, below it the predicted and, where that is another, the true class.
    """
    figure, axes = _grid(len(answers), COLUMNS, title)
    for axis, answer in zip(axes, answers, strict=True):
        axis.imshow(images[answer.index], interpolation="nearest")
        _caption(axis, answer, class_names)
    return figure


def failures_figure(
    by_class: list[list[Answer]], images: np.ndarray, class_names: list[str], title: str = ""
) -> "Figure":
    """A row a true class: its most confident mistakes; `by_class` from `galleries.failures_by_class`."""
    columns = max(1, max((len(answers) for answers in by_class), default=1))
    figure, axes = _grid(columns * len(by_class), columns, title, extra_width=0.9)
    for row, (name, answers) in enumerate(zip(class_names, by_class, strict=True)):
        cells = axes[row * columns : (row + 1) * columns]
        cells[0].text(-0.12, 0.5, name, transform=cells[0].transAxes, ha="right", va="center", fontsize=10)
        if not answers:
            cells[0].text(0.5, 0.5, "no mistake", transform=cells[0].transAxes, ha="center", va="center", fontsize=8)
        for axis, answer in zip(cells, answers, strict=False):
            axis.imshow(images[answer.index], interpolation="nearest")
            predicted = f"{class_names[answer.prediction]} {answer.prediction_probability:.1%}"
            axis.set_title(f"no. {answer.index}", fontsize=7, color="#555555", pad=2)
            axis.text(0.5, -0.04, predicted, transform=axis.transAxes, ha="center", va="top", fontsize=8)
    return figure


def grad_cam_figure(
    answers: list[Answer],
    images: np.ndarray,
    predicted_heat: np.ndarray,
    true_heat: np.ndarray,
    class_names: list[str],
    title: str = "",
) -> "Figure":
    """Each image beside its heat for the predicted class and, where any answer is wrong, for the true class.

    Heats: float (len(answers), 32, 32) in 0..1, as of `GradCam.relative`. The line is where the heat is half its
    largest value, to be seen without colours.
    """
    any_wrong = any(not answer.is_correct for answer in answers)
    kinds = [("predicted", predicted_heat)] + ([("true", true_heat)] if any_wrong else [])
    group = 1 + len(kinds)  # tiles an image
    columns = (3 if any_wrong else COLUMNS) * group
    figure, axes = _grid(len(answers) * group, columns, title, tile=1.1, group=group)
    for at, answer in enumerate(answers):
        image, *overlays = axes[at * group : (at + 1) * group]
        image.imshow(images[answer.index], interpolation="nearest")
        image.set_title(f"no. {answer.index}", fontsize=7, color="#555555", pad=2)
        for axis, (kind, heat) in zip(overlays, kinds, strict=True):
            label = answer.prediction if kind == "predicted" else answer.label
            fraction = answer.prediction_probability if kind == "predicted" else answer.label_probability
            axis.imshow(overlay(images[answer.index], heat[at]), interpolation="nearest")
            if heat[at].max() > 0:
                axis.contour(heat[at], levels=[0.5], colors="white", linewidths=0.9)
            else:
                axis.text(0.5, 0.5, "none", transform=axis.transAxes, ha="center", va="center", color="white")
            colour = "black" if answer.is_correct else WRONG_COLOUR if kind == "predicted" else CORRECT_COLOUR
            axis.set_title(kind if any_wrong else "heat", fontsize=7, color="#555555", pad=2)
            text = f"{class_names[label]} {fraction:.1%}"
            axis.text(0.5, -0.05, text, transform=axis.transAxes, ha="center", va="top", fontsize=7.5, color=colour)
    if answers:
        _heat_bar(figure)
    return figure


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The image, uint8 (s, s, 3), in grey under its heat, (s, s) in 0..1, dark to bright: uint8 (s, s, 3)."""
    from matplotlib import colormaps

    colours = 255 * colormaps["inferno"](heat)[..., :3]
    grey = (image @ LUMA)[..., None]
    return np.rint((1 - HEAT_FRACTION) * grey + HEAT_FRACTION * colours).astype(np.uint8)


def _grid(
    tiles: int, columns: int, title: str, *, tile: float = TILE_INCHES, extra_width: float = 0.0, group: int = 1
) -> tuple["Figure", list[Any]]:
    """A figure of `tiles` axes without ticks; `group` of them stand close together."""
    from matplotlib.figure import Figure

    if tiles == 0:
        figure = Figure(figsize=(6, 1.4), dpi=150)
        figure.text(0.5, 0.7, title, ha="center", fontsize=11)
        figure.text(0.5, 0.3, "there is no such image", ha="center", fontsize=10, color="#555555")
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


def _caption(axis: Any, answer: Answer, class_names: list[str]) -> None:
    axis.set_title(f"no. {answer.index}", fontsize=7, color="#555555", pad=2)
    predicted = f"{class_names[answer.prediction]} {answer.prediction_probability:.1%}"
    if answer.is_correct:
        lines = [(predicted, "black")]
    else:
        true = f"{class_names[answer.label]} {answer.label_probability:.1%}"
        lines = [(f"said {predicted}", WRONG_COLOUR), (f"is {true}", CORRECT_COLOUR)]
    for number, (text, colour) in enumerate(lines):
        place = -0.04 - 0.11 * number
        axis.text(0.5, place, text, transform=axis.transAxes, ha="center", va="top", fontsize=8, color=colour)


def _heat_bar(figure: "Figure") -> None:
    """The key to the overlays' colours, at the lower border."""
    width, height = figure.get_size_inches()
    axis = figure.add_axes((0.5 - 1.2 / width, 0.22 / height, 2.4 / width, 0.1 / height))
    axis.imshow(np.linspace(0, 1, 64)[None], cmap="inferno", aspect="auto", extent=(0, 1, 0, 1))
    axis.set_yticks([])
    axis.axvline(0.5, color="white", linewidth=0.9)
    axis.set_xticks([0, 0.5, 1], ["0", "half (line)", "largest"], fontsize=7)
    axis.set_title("heat, relative to the largest of its image", fontsize=7, pad=2)
    axis.tick_params(length=2, pad=1)
