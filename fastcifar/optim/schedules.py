"""Everything that varies in time, as pure functions of the global step: resuming is a jump, never a replay."""

import math

from fastcifar.config import ScheduleConfig


def total_steps(epochs: float, steps_per_epoch: int) -> int:
    """Steps of a run, at least one; a fraction of an epoch rounds to the nearest step."""
    return max(1, round(epochs * steps_per_epoch))


def one_cycle(step: int, total: int, peak: float, config: ScheduleConfig) -> float:
    """Learning rate of `step` in [0, total) as a fraction of the peak's.

    `peak` is the fraction of the run at which the rate is highest. The convention is that of torch's OneCycleLR with
    pct_start = peak, div_factor = 1 / start and final_div_factor = start / end: the highest rate falls on step
    peak * total - 1, the last one on total - 1. With `anneal` "step" the rate is `start` up to that step and `end`
    behind it.
    """
    top, last = peak * total - 1, total - 1
    if config.anneal == "step":
        return config.start if step <= top else config.end
    if step <= top:
        return _anneal(config.start, 1.0, step / top if top > 0 else 1.0, config.anneal)
    top = max(top, 0.0)  # a run that starts at its peak; one of a single step is at it
    return _anneal(1.0, config.end, (step - top) / (last - top) if last > top else 0.0, config.anneal)


def _anneal(begin: float, end: float, fraction: float, shape: str) -> float:
    if shape == "cos":
        return end + (begin - end) / 2 * (1 + math.cos(math.pi * fraction))
    return begin + (end - begin) * fraction


def resolution(step: int, total: int, stages: tuple[tuple[float, int], ...]) -> int:
    """Side of the images of `step` in [0, total), in pixels; `stages` are (fraction of the steps until which, side)."""
    for until, side in stages:
        if step < until * total:
            return side
    return stages[-1][1]
