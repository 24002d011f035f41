"""Learning rates and momenta of the parameter groups of an optimiser: a panel for each rate, one for the momenta."""

from typing import Any

import numpy as np

RATE_COLOUR, MOMENTUM_COLOUR = "#444444", "#2ca02c"
STYLES = ("-", "--", ":", "-.")


def draw_groups(
    figure: Any, x: np.ndarray, rates: dict[str, np.ndarray], momenta: dict[str, np.ndarray], x_label: str
) -> list[Any]:
    """Draws into a figure or subfigure; returns its axes from top to bottom. All arrays have the length of `x`."""
    panels = len(rates) + bool(momenta)
    axes: list[Any] = list(figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0])
    for axis, (name, values) in zip(axes, rates.items(), strict=False):
        axis.plot(x, values, color=RATE_COLOUR)
        axis.set(
            ylabel="learning rate" if len(rates) == 1 else f"lr, {name}", ylim=(0, 1.15 * max(values.max(), 1e-30))
        )
    curves = _named_together(momenta)
    for number, (name, values) in enumerate(curves.items()):
        axes[-1].plot(x, values, STYLES[number % len(STYLES)], color=MOMENTUM_COLOUR, label=name)
    if momenta:
        axes[-1].set(ylabel="momentum", ylim=(0, 1.05))
    if len(curves) > 1:
        axes[-1].legend(fontsize="x-small", loc="lower right", ncols=len(curves))
    for axis in axes:
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel(x_label)
    return axes


def _named_together(curves: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Equal curves once, under all of their names: one would hide the other."""
    names: dict[bytes, list[str]] = {}
    for name, values in curves.items():
        names.setdefault(values.tobytes(), []).append(name)
    return {", ".join(together): curves[together[0]] for together in names.values()}
