"""The number of steps of a run, and the image size of each, as pure functions of the configuration."""


def total_steps(epochs: float, steps_per_epoch: int) -> int:
    """Steps of a run, at least 1; fractional epochs are rounded to the nearest step."""
    return max(1, round(epochs * steps_per_epoch))


def resolution(step: int, total: int, stages: tuple[tuple[float, int], ...]) -> int:
    """Side of the training images of `step` in [0, total), in pixels; `stages` as in `Config.resolution`."""
    for end, side in stages:
        if step < end * total:
            return side
    return stages[-1][1]
