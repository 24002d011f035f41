"""The settings that `python -m bench search` varies: for each, the neighbours of a configuration."""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

from fastcifar.config import Config
from fastcifar.config.toml import to_toml

WIDTH_STEP = 32
"""Widths are multiples of it, as tensor cores and our kernels want."""
SMALLEST = 16
"""Side of an image, as in `Config.resolution`."""


def _epochs(config: Config) -> Iterator[Config]:
    for factor in (0.8, 0.9, 1.15):
        yield replace(config, epochs=round(config.epochs * factor, 1))


def _resolution(config: Config) -> Iterator[Config]:
    """The small images for longer or shorter, the smallest left out, and the last stage smaller."""
    *small, (end, size) = config.resolution
    for factor in (1.2, 0.8):
        ends = [min(0.95, round(end * factor, 3)) for end, _ in small]
        if small and all(a < b for a, b in pairwise(ends)):
            yield _with_stages(config, [*zip(ends, (side for _, side in small), strict=True), (end, size)])
    if small:
        yield _with_stages(config, [*small[1:], (end, size)])
    for fewer in (4, 8):
        last = size - fewer
        if last >= max(SMALLEST, config.model.min_image_size) and all(side < last for _, side in small):
            yield _with_stages(config, [*small, (end, last)])


def _with_stages(config: Config, stages: Any) -> Config:
    return replace(config, resolution=tuple(stages))


def _widths(config: Config) -> Iterator[Config]:
    model: Any = config.model
    first, *others = model.widths
    for factor in (0.75, 0.5, 1.25):
        yield _with_widths(config, first, *(_width(width * factor) for width in others))
    if others:
        yield _with_widths(config, first, *others[:-1], _width(others[-1] * 0.75))
    yield _with_widths(config, _width(first * 0.5), *others)


def _width(wanted: float) -> int:
    return max(WIDTH_STEP, round(wanted / WIDTH_STEP) * WIDTH_STEP)


def _with_widths(config: Config, first: int, *others: int) -> Config:
    widths: tuple[int, ...] = (first, *others)
    model: Any = config.model
    return replace(config, model=replace(model, widths=widths, logit_scale=1 / widths[-1]))


def _batch_size(config: Config) -> Iterator[Config]:
    for factor in (0.5, 0.75, 1.5, 2):
        yield replace(config, batch_size=max(1, round(config.batch_size * factor)))


def _lr(config: Config) -> Iterator[Config]:
    optimizer: Any = config.optimizer
    for factor in (0.75, 1.33):
        yield replace(config, optimizer=replace(optimizer, lr=round(optimizer.lr * factor, 4)))


SETTINGS: dict[str, Callable[[Config], Iterator[Config]]] = {
    "epochs": _epochs,
    "resolution": _resolution,
    "widths": _widths,
    "batch_size": _batch_size,
    "lr": _lr,
}
"""In the order in which they are varied."""


def changes(start: Config, config: Config) -> str:
    """What differs from `start`, in words."""
    found = []
    for owner in ("", "model", "optimizer"):
        before, now = (getattr(one, owner) if owner else one for one in (start, config))
        for name in (one.name for one in fields(now)):
            value = getattr(now, name)
            if value != getattr(before, name) and name not in ("model", "optimizer", "logit_scale"):
                found.append(f"{name} {_shown(value)}")
    return ", ".join(found) or "the recipe"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join("-".join(f"{part:g}" for part in one) if isinstance(one, tuple) else f"{one}" for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def config_text(config: Config) -> str:
    """The configuration as TOML, for `fastcifar train --config`; without the folder of the data."""
    return "".join(f"{line}\n" for line in to_toml(config).splitlines() if not line.startswith(("data =", "runs =")))
