"""Learning rate and resolution as pure functions of the global step: a resumed run continues without any replay."""

import math

from fastcifar.config import ScheduleConfig


def total_steps(epochs: float, steps_per_epoch: int) -> int:
    """Steps of a run, at least 1; fractional epochs are rounded to the nearest step."""
    return max(1, round(epochs * steps_per_epoch))


def one_cycle(step: int, total: int, peak: float, config: ScheduleConfig) -> float:
    """`lr_scale` of `step` in [0, total): the learning rate as a fraction of the peak, in [0, 1].

    `peak` is the position of the peak as a fraction of the run. Steps are counted as in torch's OneCycleLR with
    pct_start = peak, div_factor = 1 / start and final_div_factor = start / end: the peak is step peak * total - 1, the
    end step total - 1. With `anneal` "step" the value is `start` up to the step of the peak, then `end`.
    """
    top, last = peak * total - 1, total - 1
    if config.anneal == "step":
        return config.start if step <= top else config.end
    if step <= top:
        return _anneal(config.start, 1.0, step / top if top > 0 else 1.0, config.anneal)
    top = max(top, 0.0)  # a run that starts at its peak, or has a single step
    return _anneal(1.0, config.end, (step - top) / (last - top) if last > top else 0.0, config.anneal)


def _anneal(begin: float, end: float, fraction: float, shape: str) -> float:
    if shape == "cos":
        return end + (begin - end) / 2 * (1 + math.cos(math.pi * fraction))
    return begin + (end - begin) * fraction


def resolution(step: int, total: int, stages: tuple[tuple[float, int], ...]) -> int:
    """Side of the training images of `step` in [0, total), in pixels; `stages` as in `Config.resolution`."""
    for end, side in stages:
        if step < end * total:
            return side
    return stages[-1][1]
