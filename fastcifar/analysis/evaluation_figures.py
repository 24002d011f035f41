"""Confusion matrix and reliability diagram as matplotlib figures, readable in greyscale too."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fastcifar.analysis.metrics import ReliabilityBin, expected_calibration_error, wilson_interval

CONFUSION_NAME, RELIABILITY_NAME = "confusion.png", "reliability.png"
FEW_CLASSES = 20
"""Up to this many classes, every cell of the matrix shows its number."""
BAR_COLOUR, POINT_COLOUR, COUNT_COLOUR = "#9ecae1", "#08306b", "#777777"


def confusion_figure(matrix: np.ndarray, class_names: list[str], title: str = "") -> Figure:
    """Confusion matrix (classes, classes), rows true classes: counts in the cells, shaded by their part of the row.

    The diagonal is outlined instead of shaded, as the correct predictions far outnumber the mistakes.
    """
    classes = len(class_names)
    percent = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    mistakes = np.where(np.eye(classes, dtype=bool), 0.0, percent)
    side = min(12.0, 2.6 + 0.52 * classes)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained", dpi=150)
    axis = figure.subplots()
    top = max(float(mistakes.max()), 1.0)
    shades = axis.imshow(mistakes, cmap="Oranges", vmin=0, vmax=top)
    for at in range(classes):
        axis.add_patch(Rectangle((at - 0.5, at - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=0.8))
    if classes <= FEW_CLASSES:
        for (row, column), count in np.ndenumerate(matrix):
            colour = "white" if mistakes[row, column] > 0.65 * top else "black" if count else "#bbbbbb"
            weight = "bold" if row == column else "normal"
            axis.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8, fontweight=weight)
    axis.set_xticks(range(classes), class_names, rotation=45, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(classes), class_names)
    axis.set(xlabel="predicted class", ylabel="true class", title=title)
    figure.colorbar(shades, ax=axis, label="mistakes (% of the images of the true class)", shrink=0.8)
    return figure


def reliability_figure(bins: list[ReliabilityBin], title: str = "") -> Figure:
    """Accuracy against confidence with 95% intervals, and below it the number of predictions in each bin."""
    filled = [item for item in bins if item.samples]
    middles, width = [(item.low + item.high) / 2 for item in filled], 1 / len(bins)
    accuracy = np.array([item.accuracy for item in filled], dtype=float)
    num_correct = [round(value * item.samples) for value, item in zip(accuracy, filled, strict=True)]
    low, high = np.array([wilson_interval(n, item.samples) for n, item in zip(num_correct, filled, strict=True)]).T
    figure = Figure(figsize=(5.2, 6.4), layout="constrained", dpi=150)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.bar(middles, accuracy, width, color=BAR_COLOUR, edgecolor="white", label="accuracy of the bin")
    upper.plot([0, 1], [0, 1], "--", color="black", linewidth=1, label="perfect calibration")
    upper.errorbar(
        [item.confidence for item in filled],
        accuracy,
        np.maximum(0, (accuracy - low, high - accuracy)),
        fmt="o",
        markersize=4,
        color=POINT_COLOUR,
        capsize=2,
        label="95% interval, at the mean confidence",
    )
    upper.set(ylim=(0, 1.02), ylabel="accuracy")
    error = expected_calibration_error(bins)
    upper.set_title(f"expected calibration error {error:.1%} ({len(bins)} bins)", fontsize=10)
    lower.bar(middles, [item.samples for item in filled], width, color=COUNT_COLOUR, edgecolor="white")
    lower.set(xlim=(0, 1), xlabel="confidence (largest probability)", ylabel="test images")
    for axis in (upper, lower):
        axis.grid(alpha=0.3)
        axis.set_axisbelow(True)
    figure.suptitle(title, fontsize=11)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)  # inside, it could cover bars
    return figure
