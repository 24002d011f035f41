"""Mean, standard deviation and 95% interval of a few runs."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

# 97.5% quantiles of Student's t for 1 to 30 degrees of freedom; beyond, a series in 1 / df is exact to 4 digits
T_975 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip
Z_975 = 1.959964


class Interval(NamedTuple):
    """Mean, standard deviation, and half the width of the mean's 95% interval; the last two are None for one value."""

    mean: float
    deviation: float | None
    half_width: float | None


def t_quantile(degrees: int) -> float:
    """97.5% quantile of Student's t with `degrees` >= 1 degrees of freedom; above 30 by Fisher's expansion."""
    if degrees <= len(T_975):
        return T_975[degrees - 1]
    z = Z_975
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


def interval(values: Sequence[float]) -> Interval:
    """The 95% interval (Student's t) of the mean of `values`, of which there must be at least one."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean, None, None)
    deviation = statistics.stdev(values)
    return Interval(mean, deviation, t_quantile(len(values) - 1) * deviation / math.sqrt(len(values)))
