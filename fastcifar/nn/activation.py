"""GELU, SiLU, ReLU and identity, and their derivatives, from arithmetic and one exponential.

The functions take `Vector`s of 16 float32, or anything with its operators. Errors are below 2e-6, or for large values
below 1e-6 relative.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

ROUNDER = 1.5 * 2.0**23
"""Adding this to a float32 below 2**22 and subtracting it again rounds to the nearest integer."""
LOG2_E = 1.4426950408889634
POWERS = (1.00000008, 0.693147188, 0.240221075, 0.0555035711, 0.00967603192, 0.00133908634)
"""Coefficients of a polynomial for 2**f, f in [-1/2, 1/2], lowest first."""
ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
ERF_SCALE = 0.3275911
"""erfc(z) = (t a1 + t^2 a2 + ...) exp(-z^2), t = 1 / (1 + scale z), within 1.5e-7 (Abramowitz and Stegun, 7.1.26)."""


def exponential(x: Any) -> Any:
    """exp(x) for x <= 80 with a relative error below 5e-6; below -80, and for NaN, exp(-80). Callers restore NaNs."""
    x = (x * LOG2_E).where(x > -80.0, -80.0 * LOG2_E)
    integral = (x + ROUNDER) - ROUNDER
    fraction, total = x - integral, POWERS[-1]
    for factor in reversed(POWERS[:-1]):
        total = fraction * total + factor
    return total * integral.exp2_integral()


def _normal(x: Any) -> tuple[Any, Any]:
    """The standard normal distribution function at x, and exp(-x^2 / 2)."""
    size = x.where(x > 0.0, 0.0 - x)
    bell = exponential(x * x * -0.5)
    t = 1.0 / (size * (ERF_SCALE * 0.5**0.5) + 1.0)
    total: Any = ERF[-1]
    for factor in reversed(ERF[:-1]):
        total = t * total + factor
    tail = t * total * bell * 0.5
    return (1.0 - tail).where(x > 0.0, tail), bell


def gelu(x: Any) -> Any:
    """x times the standard normal distribution function (arXiv 1606.08415)."""
    return x * _normal(x)[0]


def gelu_slope(x: Any) -> Any:
    """Derivative of `gelu`."""
    probability, bell = _normal(x)
    return probability + x * bell * (2 * np.pi) ** -0.5


def _sigmoid(x: Any) -> Any:
    size = x.where(x > 0.0, 0.0 - x)
    small = exponential(0.0 - size)
    large = 1.0 / (small + 1.0)
    return large.where(x > 0.0, small * large)


def silu(x: Any) -> Any:
    """x / (1 + exp(-x)) (arXiv 1606.08415)."""
    return x * _sigmoid(x)


def silu_slope(x: Any) -> Any:
    """Derivative of `silu`."""
    sigmoid = _sigmoid(x)
    return sigmoid + x * sigmoid * (1.0 - sigmoid)


def relu(x: Any) -> Any:
    """max(x, 0)."""
    return x.where(x > 0.0, x * 0.0)


def relu_slope(x: Any) -> Any:
    """Derivative of `relu`; 0 at 0, as in torch."""
    one = x * 0.0 + 1.0
    return one.where(x > 0.0, x * 0.0)


def identity(x: Any) -> Any:
    """x."""
    return x


def identity_slope(x: Any) -> Any:
    """1."""
    return x * 0.0 + 1.0


ACTIVATIONS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "gelu": (gelu, gelu_slope),
    "silu": (silu, silu_slope),
    "relu": (relu, relu_slope),
    "identity": (identity, identity_slope),
}
"""Functions and derivatives by name."""
