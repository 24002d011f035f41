"""The number of steps of a run, and rate and image size of each, as pure functions of the configuration."""

from fastcifar.config import Config
from fastcifar.errors import UserError


def total_steps(epochs: float, steps_per_epoch: int) -> int:
    """Steps of a run, at least 1; fractional epochs are rounded to the nearest step."""
    return max(1, round(epochs * steps_per_epoch))


def resolution(step: int, total: int, stages: tuple[tuple[float, int], ...]) -> int:
    """Side of the training images of `step` in [0, total), in pixels; `stages` as in `Config.resolution`."""
    for end, side in stages:
        if step < end * total:
            return side
    return stages[-1][1]


def lr_scale(config: Config, step: int, total: int) -> float:
    """The learning rate of `step` in [0, total) as a fraction of the peak; UserError for one outside [0, 1]."""
    found = config.schedule.lr_scale(step, total, config.epochs)
    try:
        scale = float(found)
    except (TypeError, ValueError):
        scale = -1.0
    if not 0 <= scale <= 1:
        kind = type(config.schedule).__name__
        raise UserError(f"the schedule {kind} gives {found!r} for step {step} of {total}, but must give 0 to 1")
    return scale
